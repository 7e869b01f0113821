"""Packing a tree's images into few large files: what the stages `shard` and `optimize` share.

A *pack* is one such file. Which samples it holds, in which order, and how long it is follows from the tree's index and
the settings alone (`plan`), before anything is read: so packs can be written in any order, by any worker, and again
after an interruption, and come out the same. `source` reads images, `volume` and `store` are where packs go,
`stage` puts it all together, and a `Layout` says what a pack looks like.
"""
