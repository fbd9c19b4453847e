"""The audit log: only added to, bounded, and readable after a power cut."""

from agent.contract import audit


def test_a_line_that_was_cut_swallows_no_other(tmp_path):
    path = tmp_path / "audit.jsonl"
    audit.append(path, {"event": "push"})
    with path.open("ab") as file:
        file.write(b'{"event": "act')
    audit.append(path, {"event": "rollback"})
    first, torn, last = audit.read(path)
    assert (first["event"], last["event"]) == ("push", "rollback")
    assert "act" in torn["torn"]


def test_the_log_is_bounded_and_the_youngest_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "MAX_BYTES", 500)
    path = tmp_path / "audit.jsonl"
    for number in range(200):
        audit.append(path, {"number": number})
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 500 * (audit.KEPT + 1)
    numbers = [row["number"] for row in audit.read(path)]
    assert numbers == list(range(numbers[0], 200))
    assert path.stat().st_mode & 0o777 == 0o600
