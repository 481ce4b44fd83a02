-- How sharply a waiting part was seen; a complete cell has it in `instance.note`.
ALTER TABLE part ADD COLUMN sharpness REAL;
