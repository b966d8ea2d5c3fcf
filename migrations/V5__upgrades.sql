ALTER TABLE settings ADD COLUMN oldest_allowed text NOT NULL DEFAULT '0.0.0'
    CHECK (oldest_allowed ~ '^[0-9]+[.][0-9]+[.][0-9]+$');
COMMENT ON COLUMN settings.oldest_allowed IS
    'An older systole ends the work it has, and takes up no more. Raised by: systole migrate --oldest-allowed.';
