-- The catalogue's schema; docs/catalogues.md tells what is in it.

CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    -- A text where the name is UTF-8, as nearly all are, else a blob: so it is exact, and easy to ask for.
    name ANY NOT NULL UNIQUE CHECK (typeof(name) IN ('text', 'blob')),
    path ANY NOT NULL CHECK (typeof(path) IN ('text', 'blob')),
    size INTEGER NOT NULL CHECK (size >= 0),
    algorithm TEXT NOT NULL,
    digest TEXT NOT NULL,
    ingested_at TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('fits', 'other')),
    translator TEXT,
    instrument ANY,
    telescope ANY,
    observation_id ANY,
    exposure ANY,
    detector ANY,
    physical_filter ANY,
    observation_type ANY,
    object ANY,
    datetime_begin ANY,
    datetime_end ANY,
    exposure_time ANY
) STRICT;

-- For queries by exposure, and of an instrument's files.
CREATE INDEX files_by_exposure ON files (instrument, exposure, detector);

-- For queries by time.
CREATE INDEX files_by_time ON files (datetime_begin);

CREATE TABLE cards (
    file_id INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    hdu INTEGER NOT NULL,
    position INTEGER NOT NULL,
    keyword TEXT NOT NULL,
    value ANY,
    comment TEXT NOT NULL,
    PRIMARY KEY (file_id, hdu, position)
) STRICT, WITHOUT ROWID;
