"""The bucket and its objects: state, evidence and event objects, event dedup index."""
