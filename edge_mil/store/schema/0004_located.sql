-- Fields that others are placed by, with a grey picture of each; kept when the field is removed.
CREATE TABLE key_field (
    sequence INTEGER PRIMARY KEY,
    x REAL NOT NULL,
    y REAL NOT NULL,
    size TEXT NOT NULL,
    factor INTEGER NOT NULL,
    picture BLOB NOT NULL,
    links TEXT NOT NULL
);

-- Where a field without a stage was found: x and y on the lattice when its pixels were taken, and
-- how it hangs on a key field, which may move when a path closes a loop.
CREATE TABLE located (
    sequence INTEGER PRIMARY KEY,
    anchor INTEGER NOT NULL,
    dx REAL NOT NULL,
    dy REAL NOT NULL,
    x INTEGER NOT NULL,
    y INTEGER NOT NULL
);
