-- What each field says about the stage and the slide, in the order of arrival; a release of a held
-- session has sequence 0. The image is that of a refused field, which the next one is set against.
CREATE TABLE geometry (
    number INTEGER PRIMARY KEY,
    sequence INTEGER NOT NULL,
    evidence TEXT NOT NULL,
    reference TEXT NOT NULL,
    image BLOB NOT NULL
);
