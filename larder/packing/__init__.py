"""Pack a tree's images into few large files. The stages `shard` and `optimize` share this package.

A *pack* is one such file: a shard or a chunk. The samples of each pack, their order and the pack's length follow from
the tree's index and the settings alone (`plan`), before any image is read. So any worker can write packs in any order,
and write them again after an interruption, with the same result. `pack_input` reads images, `volume` and `store`
write packs, `run` has the missing ones written and commits, `stage` runs everything, and a `PackLayout` defines the
format of a pack.
"""
