"""The list of cases."""

import re

from benchmarks.zoo import make


def test_the_documentation_tells_of_every_case_and_of_no_other():
    told = re.findall(r"^    ([a-z0-9-]+)  +\S", make.__doc__, re.MULTILINE)
    assert told == list(make.CASES)
