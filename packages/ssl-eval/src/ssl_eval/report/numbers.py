"""How numbers are written."""

from ssl_eval.report.sections import Cell

MINUS = "\N{MINUS SIGN}"


def number(value: float) -> str:
    """What is known: as short as it is, with a true minus: 4, 21.5, 116,000,000."""
    return f"{value:,.10g}".replace("-", MINUS)


def measured(value: float) -> str:
    """What was measured: two places, three below one, none in large numbers: 70.00, 0.431, 116,000,000."""
    places = 0 if abs(value) >= 10_000 else 2 if abs(value) >= 1 or value == 0 else 3
    return f"{value:,.{places}f}".replace("-", MINUS)


def with_interval(cell: Cell) -> str:
    """The mean and its 95% interval."""
    reach = cell.half_width
    if reach is None:
        return f"{measured(cell.mean)}, one seed"
    ends = f"{measured(cell.mean - reach)} to {measured(cell.mean + reach)}"
    return f"{measured(cell.mean)}, 95% interval {ends}, {len(cell.results)} seeds"
