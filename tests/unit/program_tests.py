"""Tests of a program as data sets have them, for the tests of what grades programs."""

import json

from entropy_mechanism.rewards.code import (
    Verdict,
)
from entropy_mechanism.rewards.outcome import Outcome

CORRECT = Verdict(Outcome.CORRECT)


def stdio(inputs, outputs, **more):
    return json.dumps({"kind": "stdio", "inputs": inputs, "outputs": outputs, **more})


def calls(function, *pairs):
    inputs, outputs = zip(*pairs, strict=True)
    return json.dumps({"kind": "call", "function": function, "inputs": inputs, "outputs": outputs})


def pytests(code):
    return json.dumps({"kind": "pytest", "code": code})


# --- right and wrong programs of each kind ----------------------------------------------------------------------

SUMS = stdio(["1 2\n", "3 4\n", "5 6\n"], ["3\n", "7\n", "11\n"])
