"""What host and device both sign: codec, manifest, jobs, reports, facts and errors. Standard library only."""
