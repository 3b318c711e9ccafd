"""A cohort in independent parts: `--shard I/N`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..reading import Found


class Shard(NamedTuple):
    """Part `index`, from 0, of `number`."""

    index: int  # type: ignore[assignment]  # tuples have a method of this name
    number: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads "I/N". Raises `ValueError` if it is not a valid part."""
        digits = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        shard = cls(*map(int, digits.groups())) if digits else cls(0, 0)
        if not shard.index < shard.number:
            raise ValueError(f"shard {text!r}: give I/N, where I counts from 0 to N-1, such as 0/8 or 7/8.")
        return shard

    def holds(self, name: str) -> bool:
        """Whether the hash of a name belongs to this part."""
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % self.number == self.index

    def of(self, found: Found) -> Found:
        """The scans (by name) and refusals (by source) of this part.

        The order and the mount point of the inputs do not matter. A new scan does not change the part of another scan.
        If there are no scans, each part reports all refusals.
        """
        if not found.scans:
            return found
        scans = tuple(scan for scan in found.scans if self.holds(scan.name))
        return replace(found, scans=scans, refused=tuple(pair for pair in found.refused if self.holds(pair[0])))
