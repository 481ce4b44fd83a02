-- What a session keeps whole from its beginning: the calibration that it runs under.
CREATE TABLE attachment (
    name TEXT PRIMARY KEY,
    data BLOB NOT NULL
);
