"""What the agent does when asked: one file per verb, each with `run(job, wire)`."""
