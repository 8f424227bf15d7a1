"""Figures from values; nothing here knows a run directory."""

import matplotlib

matplotlib.rcParams["text.parse_math"] = False  # names of classes, files and settings may hold a $
