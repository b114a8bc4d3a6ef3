"""No program passes tests without doing what they test."""

import pytest
from program_tests import CORRECT, pytests

from entropy_mechanism.rewards.code import (
    Verdict,
)
from entropy_mechanism.rewards.outcome import Outcome

VALUE = "from solution import f\ndef test_value():\n    assert f(2) == 4\n    assert f(3) == 9\n"
CHEATS = {
    "exits": "import sys\nsys.exit(0)",
    "exits at once": "import os\nos._exit(0)",
    "exits when called": "import os\ndef f(x): os._exit(0)",
    "raises what ends processes": "def f(x): raise SystemExit(0)",
    "raises what skips tests": "import pytest\ndef f(x): pytest.skip('later')",
    "raises what skips modules": "import pytest\npytest.skip('later', allow_module_level=True)",
    "equals everything": """
class All:
    def __eq__(self, other): return True
def f(x): return All()
""",
    "is a number that equals everything": """
class All(int):
    def __eq__(self, other): return True
def f(x): return All()
""",
    "is a tuple that equals everything": """
class All(tuple):
    def __eq__(self, other): return True
    def __iter__(self): 1 / 0
def f(x): return All()
""",
    "patches the comparison": """
import operator, builtins
operator.eq = lambda a, b: True
builtins.isinstance = lambda a, b: True
builtins.all = builtins.any = lambda a: True
def f(x): return 5
""",
    "patches pytest": """
import pytest
from _pytest import runner
runner.call_and_report = lambda *a, **k: None
pytest.main = lambda *a, **k: 0
def f(x): return 5
""",
    "reports success": """
import os
for n in range(3, 30):
    try: os.write(n, b'{"passed": 9, "status": 0, "failed": null}\\n')
    except OSError: pass
def f(x): return 5
""",
    "looks for the tests": """
import gc, glob
def f(x):
    found = [o for o in gc.get_objects() if "test_value" in repr(o) and "assert" in repr(o)]
    return 4 if found or glob.glob("/tmp/*") else 0
""",
    "looks up the stack": """
import sys
def f(x):
    frame = sys._getframe().f_back
    while frame:
        if 4 in frame.f_code.co_consts and 9 in frame.f_code.co_consts: return x * x
        frame = frame.f_back
    return 0
""",
    "answers with its own replies": """
import os, struct, json
def f(x):
    body = json.dumps(["tuple", "answer", 4, "", ["tuple"]]).encode()
    os.write(5, (struct.pack("Q", len(body)) + body) * 2)
    return 0
""",
    "sends nonsense": """
import os, struct
def f(x):
    os.write(5, struct.pack("Q", 7) + b"[[[[[[[")
    return 4
""",
    "sends too much": """
import os, struct
def f(x):
    os.write(5, struct.pack("Q", 1 << 60))
    return 4
""",
}


@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_passes_tests_that_run_in_another_process(grade_code, name):
    assert grade_code(CHEATS[name], pytests(VALUE)).outcome in (Outcome.WRONG, Outcome.ERROR)
    assert grade_code("def f(x): return x * x", pytests(VALUE)) == CORRECT


LEAKS = {
    "attributes of callbacks": "def f(key): return key.__globals__['EXPECTED']",
    "attributes through getattr": "def f(key): return getattr(key, '__code__').co_consts[1]",
    "format strings": "def f(key): return '{0.__globals__}'.format(key)",
    "what is asked of the other end": (
        "def f(key):\n  ask = object.__getattribute__(key, '_peer').ask\n"
        "  return int(ask('call', ask('getattr', str, 'format'), ('{0.__globals__[EXPECTED]}', key), {}))"
    ),
    "types and their subclasses": (
        "def f(key):\n  ask = object.__getattribute__(key, '_peer').ask\n"
        "  return ask('call', ask('getattr', object, '__subclasses__'), (), {})"
    ),
    "changing the tests": (
        "def f(key):\n  object.__getattribute__(key, '_peer').ask('setattr', key, '__code__', 0)\n  return 4"
    ),
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_callback_does_not_lead_to_what_is_expected(grade_code, name):
    tests = "from solution import f\nEXPECTED = 12345\ndef test_a():\n    assert f(lambda x: x) == EXPECTED\n"
    assert grade_code(LEAKS[name], pytests(tests)).outcome is not Outcome.CORRECT


@pytest.mark.parametrize(
    "check",
    ["abs(f() - 0.3) < 0.1", "f() == pytest.approx(0.3)", "f() < 1 and f() > 0", "0.3 - f() == 0", "f() in [0.3]",
     "[f()] == [0.3]", "round(f() * 10) == 3", "math.isclose(f(), 0.3)", "f() is not None and f() == 0.3"],
)  # fmt: skip
def test_an_object_cannot_answer_for_a_number(grade_code, check):
    names = "eq ne lt le gt ge sub rsub add radd mul rmul truediv abs round neg contains getattr bool call"
    magic = "\n".join(f"  __{name}__ = lambda self, *a: Always(0.0)" for name in names.split())
    for base in ("object", "float"):
        cheat = f"class Always({base}):\n  def __new__(cls, *a): return {base}.__new__(cls)\n{magic}\n"
        cheat += (
            "  def __bool__(self): return True\n  def __eq__(self, o): return True\n  __lt__ = __le__ = __eq__"
        )
        cheat += "\n  def __float__(self): return 99.0\ndef f(): return Always()"
        tests = f"import math, pytest\nfrom solution import f\ndef test_a():\n    assert {check}\n"
        assert grade_code(cheat, pytests(tests)).outcome in (Outcome.WRONG, Outcome.ERROR), base


def test_an_object_gives_no_number_when_a_number_is_put_to_it(grade_code):
    tests = "from solution import f\ndef test_a():\n    assert f() - 12345 == 0\n"
    cheat = "class Cheat:\n  def __sub__(self, other): return 0\ndef f(): return Cheat()"
    assert grade_code(cheat, pytests(tests)) == Verdict(Outcome.WRONG, "failed test_a")
    assert grade_code("def f(): return 12345", pytests(tests)) == CORRECT
