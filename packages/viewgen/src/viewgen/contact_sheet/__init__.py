"""A picture to judge a run by."""

from viewgen.contact_sheet.sheet import contact_sheet

__all__ = ["contact_sheet"]
