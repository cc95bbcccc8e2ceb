"""The known-truth cohort: studies as real files whose evidence and posterior are known exactly."""
