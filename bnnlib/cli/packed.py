"""``bnn verify``, ``bnn predict`` and ``bnn export``: what packed networks say of images, here and elsewhere."""

import sys
from pathlib import Path

import click

from bnnlib import paths
from bnnlib.errors import UserError


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
def verify(files: tuple[Path, ...]) -> None:
    """Compare packed networks with PyTorch on all test images; FILES, or all of data/pretrained."""
    from bnnlib.runs import verification

    chosen = list(files) or sorted(paths.packed_dir().glob("*/*.safetensors"))
    if not chosen:
        raise UserError(f"no packed network in {paths.packed_dir()}; `bnn train STUDY --pack` makes one")
    failed = 0
    for file in chosen:
        found = verification.verify(file)
        failed += not found.equal
        click.echo(found.line())
    if failed:
        sys.exit(1)


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--network",
    type=click.Path(path_type=Path),
    help="A packed network; default the binary LeNet5 of data/pretrained, which reads handwritten digits.",
)
@click.option("--invert", is_flag=True, help="Dark on light, as ink on paper; MNIST is light on dark.")
def predict(pictures: tuple[Path, ...], network: Path | None, invert: bool) -> None:
    """Classify picture files, scaled to what the network takes."""
    from bnnlib.packed import PackedNet
    from bnnlib.packed import pictures as reading

    net = PackedNet.load(network or paths.packed_dir() / "lenet-mnist" / reading.DEFAULT)
    images = reading.read(pictures, net.network.image, invert)
    names = reading.class_names(net.network.spec.arch)
    for picture, logits in zip(pictures, net.logits(images), strict=True):
        first, second = logits.argsort()[::-1][:2]
        click.echo(f"{picture}: {names[first]} (logit {logits[first]:.2f}; then {names[second]}, {logits[second]:.2f})")


@click.command()
@click.argument("network", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def export(network: Path, out: Path) -> None:
    """Write the packed NETWORK to OUT as ONNX, for other runtimes: uint8 images in, logits out, equal predictions."""
    from bnnlib.export import export_onnx
    from bnnlib.packed import read

    _, model = read(network)
    export_onnx(model, out)
    shape = ", ".join(map(str, model.image.shape))
    click.echo(f"{out}: {out.stat().st_size:,} bytes; image uint8 [N, {shape}], logits float32 [N, 10]")
