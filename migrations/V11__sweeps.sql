ALTER TABLE takeover_brake ADD COLUMN swept_at timestamptz NOT NULL DEFAULT '-infinity';
COMMENT ON COLUMN takeover_brake.swept_at IS
    'When somebody last looked at all who hold something, and left nobody unjudged for a doubt about itself.';
