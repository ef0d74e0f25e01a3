"""What a network multiplies when it is executed: layers, vector lengths and operands, read off one forward pass.

The tensors are caught on their way into torch's convolution and matrix product, so that what is counted is what is
executed; the operands are those that the layers declare, and are checked against the values in these tensors.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bnnlib.errors import UserError
from bnnlib.nn.layers import Image, eval_mode
from bnnlib.nn.planes import Multiply
from bnnlib.operands import operand_bits

PRODUCTS = (F.linear, F.conv1d, F.conv2d, F.conv3d)
# products of two activations, and other kinds of layers; by name, since a method is another object than its function
UNCOUNTED = {
    "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "dot", "inner", "addmm", "addmv", "addbmm", "baddbmm",
    "einsum", "tensordot", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "bilinear",
    "scaled_dot_product_attention", "multi_head_attention_forward", "rnn_tanh", "rnn_relu", "gru", "lstm",
    "rnn_tanh_cell", "rnn_relu_cell", "gru_cell", "lstm_cell",
}  # fmt: skip


def record(model: nn.Module) -> list[tuple]:
    """The rows that ``profile`` gives of a network: what it multiplies in one forward pass.

    Args:
        model: a network on any device, in train or eval mode; it is left as it was, and so are torch's generators.

    Raises:
        UserError: as ``profile``.
    """
    images = [module for module in model.modules() if isinstance(module, Image)]
    if not images:
        raise UserError(f"{type(model).__name__} has no Image module to say what images it takes; start it with one")
    device = next(iter(model.parameters())).device
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, *images[0].shape), dtype=torch.uint8, generator=generator, device="cpu")
    with eval_mode(model), Recorder(model) as recorder, torch.no_grad():
        model(image.to(device))
    return recorder.rows


class Recorder(TorchFunctionMode):
    """Notes every product of a forward pass, the layer it is in, and the operand that was declared last before it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.rows: list[tuple] = []
        self.layers: list[list] = []  # [module, values in its input, products] of the layers that are running
        self.running: list[nn.Module] = []  # innermost last
        self.act = "float"
        self.names = {module: name for name, module in model.named_modules()}

    def __enter__(self) -> "Recorder":
        self.hooks = []
        for module in self.names:
            self.hooks += [module.register_forward_pre_hook(self._enter), module.register_forward_hook(self._leave)]
            if weight_operand(module):
                self.hooks += [module.register_forward_pre_hook(self._enter_layer)]
                self.hooks += [module.register_forward_hook(self._leave_layer)]
            elif isinstance(module, Multiply):
                self.hooks += [module.register_forward_hook(self._note_multiplications)]
            elif hasattr(module, "operand"):
                self.hooks += [module.register_forward_hook(self._note_operand)]
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()
        super().__exit__(*error)

    def _enter(self, module: nn.Module, inputs: tuple) -> None:
        self.running.append(module)

    def _leave(self, *_: object) -> None:
        self.running.pop()

    def _enter_layer(self, module: nn.Module, inputs: tuple) -> None:
        self.layers.append([module, inputs[0].numel(), 0])

    def _leave_layer(self, *_: object) -> None:
        self.layers.pop()

    def _note_multiplications(self, module: nn.Module, inputs: tuple, y: Tensor) -> None:
        scale_bits = inputs[1].numel() * operand_bits(module.act)
        self.rows.append((self.names[module], y.numel(), 1, module.weight, module.act, 0, scale_bits, y.numel()))

    def _note_operand(self, module: nn.Module, *_: object) -> None:
        self.act = module.operand

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", None) in UNCOUNTED:
            raise UserError(
                f"{self._where()} multiplies by {function.__name__}, which is not counted; only convolutions and fully "
                "connected layers are"
            )
        output = function(*args, **(kwargs or {}))
        if function in PRODUCTS:
            named = dict(zip(("input", "weight"), args, strict=False)) | (kwargs or {})
            self._note_product(named["input"], named["weight"], output)
        return output

    def _where(self) -> str:
        """The module that runs, by its name in the network and its kind."""
        module = self.running[-1]
        return f"{self.names[module]} ({type(module).__name__})" if self.names[module] else type(module).__name__

    def _note_product(self, x: Tensor, w: Tensor, y: Tensor) -> None:
        if not self.layers:
            raise UserError(
                f"{self._where()} multiplies by weights {list(w.shape)} and declares no operands; build it of "
                "QuantConv2d and QuantLinear, or quantize it with bnnlib.binarize"
            )
        layer = self.layers[-1]
        module, inputs, products = layer
        name, weight, act = self.names[module], weight_operand(module), getattr(module, "input_operand", self.act)
        _check(f"the weights of {name}", w, weight)
        _check(f"the input of {name}", x, act)
        vector_length = w[0].numel()
        stored = getattr(module, "stored", True)
        bits = (w.numel() * operand_bits(weight) if stored and not products else 0), inputs * operand_bits(act) * stored
        self.rows.append((name, y.numel() * vector_length, vector_length, weight, act, *bits, y.numel()))
        layer[2] += 1


def weight_operand(module: nn.Module) -> str | None:
    """The operand by which a module multiplies: of its weights, or of the ones by which it sums; None without."""
    return getattr(module, "weight_operand", None) or getattr(module, "ones_operand", None)


def _check(what: str, values: Tensor, operand: str) -> None:
    if operand == "float" or values.is_meta:
        return
    if operand == "binary":
        fits = bool((values.abs() == 1).all())
    elif operand == "ternary":
        fits = bool((values.abs() == values.square()).all())
    else:
        fits = on_grid(values, operand_bits(operand))
    if not fits:
        found = values.unique()
        raise UserError(
            f"{what} are declared {operand} but hold {len(found)} values from {found[0]:.4g} to {found[-1]:.4g}; "
            "quantize them, or declare what they are"
        )


def on_grid(values: Tensor, bits: int) -> bool:
    """Whether all values lie on some grid of 2^bits equidistant points.

    The step is the greatest common divisor of their distances, by Euclid's algorithm on all distances at once; less
    than a tenth of the smallest step that could do counts as rounding.
    """
    points = values.unique().double()
    if len(points) < 2:
        return True
    distances, span, most = points.diff(), float(points[-1] - points[0]), 2**bits - 1
    rounding = 0.1 * span / most
    step = float(distances.min())
    while step > rounding:
        rest = (distances - step * (distances / step).round()).abs()
        rest = rest[rest > rounding]
        if not len(rest):
            return round(span / step) <= most
        step = float(rest.min())  # at most half of the last step
    return False
