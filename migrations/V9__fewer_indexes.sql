-- Nothing needs it that the indexes of V3 and V7 do not serve, and by old statistics the planner took it for a short way to
-- what is queued: a claim then read all that ever was.
DROP INDEX runs_by_status;
