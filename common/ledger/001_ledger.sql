-- The ledger of both managers: a row a version, its whole history, and the counts that status shows.
-- Times are INTEGER milliseconds since the epoch.

-- What this ledger is: `id`, the kind of `manager` that it belongs to, the `algorithm` of its digests,
-- and the `mount_points` of the manager's directories.
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The chain of the manager's lifecycle.
CREATE TABLE steps (
    working TEXT PRIMARY KEY,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The moves that the manager's lifecycle allows, and what holds of an entry after each of them.
-- Entries begin with a move from ''.
CREATE TABLE moves (
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    -- It is in flight: it has a batch.
    in_flight INTEGER NOT NULL,
    -- It is in trouble: it has a cause.
    trouble INTEGER NOT NULL,
    -- It is no longer on its way.
    settled INTEGER NOT NULL,
    PRIMARY KEY (source, target)
) STRICT, WITHOUT ROWID;

-- What one worker takes, or took, through one step.
CREATE TABLE batches (
    id INTEGER PRIMARY KEY,
    step TEXT NOT NULL,
    worker INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    finished_at INTEGER,
    files INTEGER NOT NULL CHECK (files > 0),
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    -- The path of the first of its files.
    example BLOB NOT NULL,
    phase TEXT NOT NULL DEFAULT '',
    progress_bytes INTEGER NOT NULL DEFAULT 0,
    -- Seconds by phase, a JSON object.
    phases TEXT NOT NULL DEFAULT '{}',
    exit_code INTEGER,
    error TEXT NOT NULL DEFAULT ''
) STRICT;

-- For what is carried now, and for rescue.
CREATE INDEX batches_open ON batches (worker) WHERE finished_at IS NULL;

-- AUTOINCREMENT, because the history of an id outlives its row.
CREATE TABLE files (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path BLOB NOT NULL CHECK (length(path) > 0),
    -- The fence. What does not fit 64 bits with a sign (some filesystems' inodes, the year 2300) is text.
    inode ANY NOT NULL,
    size INTEGER NOT NULL CHECK (size >= 0),
    mtime_ns ANY NOT NULL,
    ctime_ns ANY NOT NULL,
    algorithm TEXT CHECK (algorithm IN ('sha256', 'blake2b')),
    -- NULL until the file has been hashed for the first time.
    digest BLOB CHECK (length(digest) IN (32, 64)),
    state TEXT NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0 CHECK (settled IN (0, 1)),
    -- For what has failed since its last success: the working state to be tried again.
    step TEXT,
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    claims INTEGER NOT NULL DEFAULT 0 CHECK (claims >= 0),
    -- When it is tried again; a failed entry without it waits for a person.
    due_at INTEGER,
    -- What entries in trouble are counted by; empty for all others.
    cause TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    bulky INTEGER NOT NULL DEFAULT 0 CHECK (bulky IN (0, 1)),
    -- The batch that it rides in, while it is in flight.
    batch_id INTEGER REFERENCES batches (id),
    found_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    CHECK ((algorithm IS NULL) = (digest IS NULL)),
    CHECK (due_at IS NULL OR (step IS NOT NULL AND batch_id IS NULL AND settled = 0))
) STRICT;

-- An entry is a version, (path, digest); of a path, one entry at most has not been hashed yet.
-- For record and finish: the versions of a path.
CREATE UNIQUE INDEX files_version ON files (path, ifnull(digest, x''));

-- For claim, oldest or newest first; for rescue.
CREATE INDEX files_queue ON files (state, bulky, mtime_ns) WHERE settled = 0;

-- For claim and next_due: what is to be tried again.
CREATE INDEX files_due ON files (step, due_at, bulky) WHERE due_at IS NOT NULL;

-- For retry and for the groups of failures.
CREATE INDEX files_trouble ON files (state, cause, due_at) WHERE cause <> '';

-- For what has waited longest, of those that are well and of those in trouble. Apart, and without the
-- state, because so an entry that is well is put in once, at the end, and taken out once.
CREATE INDEX files_waiting ON files (found_at) WHERE settled = 0 AND cause = '';
CREATE INDEX files_waiting_in_trouble ON files (found_at) WHERE settled = 0 AND cause <> '';

-- Entries that turned out, once hashed, to be a version known under another id.
CREATE TABLE merges (
    file_id INTEGER PRIMARY KEY,
    into_id INTEGER NOT NULL REFERENCES files (id)
) STRICT;

-- For history: the other ids of a version.
CREATE INDEX merges_into ON merges (into_id);

CREATE TABLE history (
    file_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    -- '' where the entry began.
    source TEXT NOT NULL,
    -- '' where the entry was merged into another.
    target TEXT NOT NULL,
    batch_id INTEGER,
    reason TEXT NOT NULL,
    PRIMARY KEY (file_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE totals (
    state TEXT NOT NULL,
    cause TEXT NOT NULL,
    files INTEGER NOT NULL CHECK (files >= 0),
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (state, cause)
) STRICT, WITHOUT ROWID;

-- How many files reached a state within a second of time; for rates. Only the last hour is kept.
CREATE TABLE pace (
    state TEXT NOT NULL,
    second INTEGER NOT NULL,
    files INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (state, second)
) STRICT, WITHOUT ROWID;

-- What the endpoint manager says of a version.
CREATE TABLE receipts (
    file_id INTEGER NOT NULL REFERENCES files (id),
    state TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (file_id, state)
) STRICT, WITHOUT ROWID;

-- Where versions come from, as delivery notes tell it; the latest note that names one.
CREATE TABLE origins (
    path BLOB NOT NULL,
    algorithm TEXT NOT NULL CHECK (algorithm IN ('sha256', 'blake2b')),
    digest BLOB NOT NULL CHECK (length(digest) IN (32, 64)),
    note BLOB NOT NULL,
    sent_at INTEGER NOT NULL,
    PRIMARY KEY (path, digest, algorithm)
) STRICT, WITHOUT ROWID;

-- What the running, or the last, manager says of itself: one row.
CREATE TABLE manager (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    version TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    heartbeat_at INTEGER NOT NULL,
    endpoint_state TEXT NOT NULL CHECK (endpoint_state IN ('reachable', 'unreachable', 'unknown')),
    endpoint_since INTEGER,
    endpoint_reason TEXT NOT NULL,
    paused TEXT NOT NULL,
    -- A JSON object by place.
    disk TEXT NOT NULL
) STRICT;

-- Rule: an entry begins only as the lifecycle allows; it is counted, and its history begins.
CREATE TRIGGER files_begin AFTER INSERT ON files
BEGIN
    SELECT RAISE(ABORT, 'no entry begins like this')
    WHERE NOT EXISTS (
        SELECT 1 FROM moves
        WHERE source = ''
            AND target = NEW.state
            AND in_flight = (NEW.batch_id IS NOT NULL)
            AND trouble = (NEW.cause <> '')
            AND settled = NEW.settled
    );
    INSERT INTO history (file_id, seq, at, source, target, batch_id, reason)
    VALUES (NEW.id, 1, NEW.changed_at, '', NEW.state, NEW.batch_id, NEW.reason);
    INSERT INTO totals (state, cause, files, bytes)
    VALUES (NEW.state, NEW.cause, 1, NEW.size)
    ON CONFLICT (state, cause) DO UPDATE SET files = files + 1, bytes = bytes + excluded.bytes;
END;

-- Rule: only moves of the lifecycle; each is written into the history.
CREATE TRIGGER files_move AFTER UPDATE OF state ON files WHEN NEW.state <> OLD.state
BEGIN
    SELECT RAISE(ABORT, 'this move is not allowed')
    WHERE NOT EXISTS (
        SELECT 1 FROM moves
        WHERE source = OLD.state
            AND target = NEW.state
            AND in_flight = (NEW.batch_id IS NOT NULL)
            AND trouble = (NEW.cause <> '')
            AND settled = NEW.settled
    );
    INSERT INTO history (file_id, seq, at, source, target, batch_id, reason)
    VALUES (
        NEW.id,
        (SELECT max(seq) + 1 FROM history WHERE file_id = NEW.id),
        NEW.changed_at,
        OLD.state,
        NEW.state,
        ifnull(NEW.batch_id, OLD.batch_id),
        NEW.reason
    );
END;

-- Rule: totals are true.
CREATE TRIGGER files_count AFTER UPDATE OF state, cause, size ON files
WHEN NEW.state <> OLD.state OR NEW.cause <> OLD.cause OR NEW.size <> OLD.size
BEGIN
    UPDATE totals SET files = files - 1, bytes = bytes - OLD.size
    WHERE state = OLD.state AND cause = OLD.cause;
    INSERT INTO totals (state, cause, files, bytes)
    VALUES (NEW.state, NEW.cause, 1, NEW.size)
    ON CONFLICT (state, cause) DO UPDATE SET files = files + 1, bytes = bytes + excluded.bytes;
END;

-- Rule: causes that are over are not kept, so that totals stay few.
CREATE TRIGGER totals_over AFTER UPDATE OF files ON totals WHEN NEW.files = 0 AND NEW.cause <> ''
BEGIN
    DELETE FROM totals WHERE state = NEW.state AND cause = NEW.cause;
END;

-- Rule: a version stays that version.
CREATE TRIGGER files_identity BEFORE UPDATE OF id, path, algorithm, digest ON files
WHEN NEW.id <> OLD.id
    OR NEW.path <> OLD.path
    OR (OLD.digest IS NOT NULL AND (NEW.digest IS NOT OLD.digest OR NEW.algorithm IS NOT OLD.algorithm))
BEGIN
    SELECT RAISE(ABORT, 'an entry keeps its path and its digest');
END;

-- Rule: no entry is lost; one that is merged into another leaves its history behind.
CREATE TRIGGER files_end BEFORE DELETE ON files
BEGIN
    SELECT RAISE(ABORT, 'an entry goes only by being merged into another')
    WHERE NOT EXISTS (SELECT 1 FROM merges WHERE file_id = OLD.id);
    INSERT INTO history (file_id, seq, at, source, target, batch_id, reason)
    VALUES (
        OLD.id,
        (SELECT max(seq) + 1 FROM history WHERE file_id = OLD.id),
        OLD.changed_at,
        OLD.state,
        '',
        OLD.batch_id,
        OLD.reason
    );
    UPDATE totals SET files = files - 1, bytes = bytes - OLD.size
    WHERE state = OLD.state AND cause = OLD.cause;
END;

-- Rule: history is append-only.
CREATE TRIGGER history_stays BEFORE UPDATE ON history
BEGIN
    SELECT RAISE(ABORT, 'history is never changed');
END;

CREATE TRIGGER history_remains BEFORE DELETE ON history
BEGIN
    SELECT RAISE(ABORT, 'history is never removed');
END;

CREATE TRIGGER merges_stay BEFORE UPDATE ON merges
BEGIN
    SELECT RAISE(ABORT, 'history is never changed');
END;

CREATE TRIGGER merges_remain BEFORE DELETE ON merges
BEGIN
    SELECT RAISE(ABORT, 'history is never removed');
END;
