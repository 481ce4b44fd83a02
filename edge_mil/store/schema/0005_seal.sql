-- A digest of every row of the other tables (`edge_mil/store/seal.py`). `kind` is the table; `number`
-- and `key` are the row's own. `bulk` covers its large columns, `digest` all others: a listing need
-- not read images and features. A row without a seal, or a seal without its row, is damage too.
CREATE TABLE seal (
    kind TEXT NOT NULL,
    number INTEGER NOT NULL,
    key TEXT NOT NULL,
    digest INTEGER NOT NULL,
    bulk INTEGER NOT NULL,
    PRIMARY KEY (kind, number, key)
) WITHOUT ROWID;

CREATE TRIGGER unseal_instance AFTER DELETE ON instance BEGIN
    DELETE FROM seal WHERE kind = 'instance' AND number = OLD.sequence AND key = OLD.place;
END;
CREATE TRIGGER unseal_part AFTER DELETE ON part BEGIN
    DELETE FROM seal WHERE kind = 'part' AND number = OLD.rowid AND key = '';
END;
