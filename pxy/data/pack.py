"""The path of before, for code outside pxy: rows are packed in pxy/rl/pack.py."""

from pxy.rl.pack import Packed, bins, dtype, lengths, rows

__all__ = ["Packed", "bins", "dtype", "lengths", "rows"]
