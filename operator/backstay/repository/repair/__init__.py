"""Repairs: making the best of a damaged repository, in the order in which they build upon each other.

First what is intact in damaged packs is saved (`repair_packs`, with the ids that a check tells), then the index is made
true (`repair_index`), and at last snapshots are written anew without what is lost (`repair_snapshots`). Each leaves a
repository that is no worse whenever it is stopped. Whoever can should copy the bucket first, since a better way back
than a repair is the same content once more: a backup that finds it again stores it again.
"""

from backstay.repository.repair.index_repair import IndexRepair, repair_index
from backstay.repository.repair.pack_repair import PackRepair, repair_packs
from backstay.repository.repair.snapshot_repair import SnapshotRepair, repair_snapshots

__all__ = ["IndexRepair", "PackRepair", "SnapshotRepair", "repair_index", "repair_packs", "repair_snapshots"]
