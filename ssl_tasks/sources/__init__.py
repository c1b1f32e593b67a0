"""Where samples come from: what there is at a path, its files with their hashes, and its samples in order.

    source = open_source(SourceConfig(path="photos"), (".jpg", ".png"))
    source.listing_hash()                           # reads only files that changed since the last time
    for rows, payloads in source.samples(): ...     # Arrow tables of equal length

`detect` chooses the kind of source. `listing` looks at files and reads them in parallel, `walk` finds them, `memory`
keeps their hashes. Each kind stands in a file of its own: `folders`, `records` (lists and data sets, whose formats
are in `lists`, `columnar` and `huggingface`), `arrays`, `tars`, `tables`.
"""
