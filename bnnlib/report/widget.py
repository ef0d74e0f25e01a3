"""The energy explorer inside JupyterLab: the choices of the explorer's page, computed by ``bnnlib.energy`` itself."""

import html

import ipywidgets as widgets
import pandas as pd

from bnnlib.energy import table_names
from bnnlib.energy.breakdown import cost_rows, printed
from bnnlib.errors import UserError
from bnnlib.operands import OPERANDS
from bnnlib.report.explorer import WIDTHS
from bnnlib.specs import ARCHS, ModelSpec


class Explorer(widgets.VBox):
    """Controls for network, width, table and the operands of each layer, and the table that ``bnn cost`` prints.

    Where no kernel runs, the table of the choice it was made with is shown instead.

    Args:
        spec, table: what it begins with; the width is one of ``WIDTHS``.
    """

    def __init__(self, spec: ModelSpec, table: str = "icmla2020") -> None:
        self.arch = widgets.Dropdown(options=list(ARCHS), value=spec.arch, description="network")
        self.width = widgets.Dropdown(options=WIDTHS, value=spec.width, description="width")
        self.table = widgets.Dropdown(options=table_names(), value=table, description="table")
        self.shown = widgets.HTML()
        self.layers = widgets.VBox()
        self.arch.observe(lambda change: self._begin(_binary(change.new)), "value")
        for control in (self.width, self.table):
            control.observe(lambda _: self._show(), "value")
        super().__init__([widgets.HBox([self.arch, self.width, self.table]), self.layers, self.shown])
        self._begin(spec)

    @property
    def spec(self) -> ModelSpec:
        """The chosen network."""
        weights, acts = ("".join(control.value for control in side) for side in (self.weights, self.acts))
        return ModelSpec(self.arch.value, weights, acts, self.width.value)

    def _begin(self, spec: ModelSpec) -> None:
        """Controls for the layers of another network."""
        names = [layer.name for layer in ARCHS[spec.arch].layers]
        self.weights = [_operand(f"{name} weights", code) for name, code in zip(names, spec.weights, strict=True)]
        self.acts = [_operand("its input", code) for code in spec.acts]
        for control in self.weights + self.acts:
            control.observe(lambda _: self._show(), "value")
        first, *others = self.weights
        self.layers.children = [first, *map(widgets.HBox, zip(others, self.acts, strict=True))]
        self._show()

    def _show(self) -> None:
        self.shown.value = self.as_html()

    def as_html(self) -> str:
        """The table of the choice, or why there is none."""
        try:
            rows: pd.DataFrame = printed(cost_rows(self.spec, self.table.value))
        except UserError as error:
            return f"<p>{html.escape(str(error))}</p>"
        return rows.to_html(index=False, border=0)

    def _repr_mimebundle_(self, **kwargs: object) -> dict:
        # what follows is for pages without a kernel; JupyterLab prefers the widget
        return {**super()._repr_mimebundle_(**kwargs), "text/html": self.as_html(), "text/plain": "Explorer()"}


def _binary(arch: str) -> ModelSpec:
    return ModelSpec(arch, "b" * len(ARCHS[arch].layers), "b" * (len(ARCHS[arch].layers) - 1))


def _operand(label: str, code: str) -> widgets.Dropdown:
    return widgets.Dropdown(options=[(name, code) for code, name in OPERANDS.items()], value=code, description=label)
