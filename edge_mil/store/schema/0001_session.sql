-- One file holds one session. Sequence numbers are the client's; keys name a place on the slide.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- One row for each field that was answered. `answer` is the serialised edge_mil.v1.FieldResult.
CREATE TABLE field (
    sequence INTEGER PRIMARY KEY,
    verdict INTEGER NOT NULL,
    payload_crc INTEGER NOT NULL,
    header TEXT NOT NULL,
    answer BLOB NOT NULL,
    state BLOB,
    removed INTEGER NOT NULL DEFAULT 0
);

-- One row for each instance (kind 1), each candidate of a slot that is not its best (kind 2), and
-- each complete cell without tissue (kind 0). `sources` are the fields that gave it pixels.
CREATE TABLE instance (
    place TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    sources TEXT NOT NULL,
    note TEXT NOT NULL DEFAULT '',
    features BLOB,
    attention_logits BLOB,
    PRIMARY KEY (place, sequence)
) WITHOUT ROWID;
CREATE INDEX instance_of_field ON instance (sequence);

-- Pixels of cells that are not complete yet, deleted when they are.
CREATE TABLE part (
    place TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    box TEXT NOT NULL,
    pixels BLOB NOT NULL
);
CREATE INDEX part_of_place ON part (place);

CREATE TABLE thumbnail (
    sequence INTEGER PRIMARY KEY,
    jpeg BLOB NOT NULL
);

-- What was done to the session by hand, in order.
CREATE TABLE event (
    number INTEGER PRIMARY KEY,
    time REAL NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL
);
