import hashlib
import math
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_mechanism.config import ArithmeticSet, Teacher, TinyModel, Warmup
from entropy_mechanism.data.arithmetic import UnreliableTeacher, generate
from entropy_mechanism.data.programs import UnreliableProgrammer
from entropy_mechanism.models.load import load_policy, load_tokenizer, save_policy
from entropy_mechanism.models.tiny import (
    END,
    IGNORED,
    PAD,
    WORDS,
    _batches,
    _Lessons,
    _lessons,
    build_model,
    build_tokenizer,
    warm_up,
)
from entropy_mechanism.stages.make_model import Progress

TOKENIZER = build_tokenizer()


def tiny(steps=3, **changes):
    values = {"layers": 1, "width": 32, "heads": 1, "kv_heads": 1}
    warmup = Warmup(steps=steps, batch=8, operands=(3, 4), problems=200, teacher=Teacher())
    return TinyModel(**({"kind": "tiny", "warmup": warmup} | values | changes))


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


task_text = st.lists(st.sampled_from([*"0123456789+-=\n }", "\\boxed{", "user", "system"]), max_size=20)
other_text = st.text(max_size=10).map(lambda text: unicodedata.normalize("NFC", text))


@settings(deadline=None)
@given(st.one_of(task_text.map("".join), other_text))
def test_decoding_gives_back_the_encoded_text(text):
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == text


def test_the_vocabulary_of_arithmetic_is_what_it_was_before_there_were_other_tasks():
    vocabulary = sorted(TOKENIZER.get_vocab().items(), key=lambda entry: entry[1])
    digest = hashlib.sha256(repr(vocabulary).encode()).hexdigest()
    assert digest == "5b7f13637f2ffa54f660c311b5fa4a73f67fecabab081810a4fbf771b57166e3"


def test_problems_and_solutions_pass_through_the_chat_template():
    teacher, rng = UnreliableTeacher(Teacher()), np.random.default_rng(0)
    numbers = ArithmeticSet(kind="arithmetic", split="test", operands=(2, 7), problems=100)
    for problem in generate(numbers):
        solution = teacher.write_solution(problem.problem, rng)
        messages = [
            {"role": "user", "content": problem.problem},
            {"role": "assistant", "content": solution},
        ]
        text = TOKENIZER.apply_chat_template(messages, tokenize=False)
        assert text == (
            f"<|im_start|>user\n{problem.problem}<|im_end|>\n<|im_start|>assistant\n{solution}<|im_end|>\n"
        )
        ids = TOKENIZER(text)["input_ids"]
        assert TOKENIZER.decode(ids) == text


def test_a_generation_prompt_is_a_prefix_of_the_finished_conversation():
    user = {"role": "user", "content": "7+5-3"}
    asked = TOKENIZER.apply_chat_template([user], add_generation_prompt=True, return_dict=False)
    whole = TOKENIZER.apply_chat_template(
        [user, {"role": "assistant", "content": "=7+5=2-3=9\\boxed{9}"}], return_dict=False
    )
    assert whole[: len(asked)] == asked
    assert TOKENIZER.eos_token_id == TOKENIZER.convert_tokens_to_ids(END) == whole[-2]
    # A result, a step and the box are one token each.
    assert len(whole) - len(asked) == len(["=7", "+5", "=2", "-3", "=9", "\\boxed{9}", END, "\n"])


def test_model_has_the_asked_architecture():
    model = build_model(tiny(layers=2, width=64, heads=2, kv_heads=1, tied=True, init_std=0.05), TOKENIZER)
    assert (len(model.model.layers), model.config.hidden_size, model.config.vocab_size) == (2, 64, len(TOKENIZER))
    attention = model.model.layers[0].self_attn
    assert attention.head_dim == 32
    assert attention.k_proj.weight.shape == (32, 64)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.model.layers[1].mlp.up_proj.weight.std().item() == pytest.approx(0.05, rel=0.05)
    assert model.config.eos_token_id == TOKENIZER.eos_token_id
    untied = build_model(tiny(), TOKENIZER)
    assert untied.lm_head.weight is not untied.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [("qwen2", 3 * 32), ("llama", 0), ("mistral", 0)],
)
def test_every_architecture_is_transformers_own_and_loads_with_the_same_cut(architecture, parameters, tmp_path):
    model = build_model(tiny(architecture=architecture), TOKENIZER)
    save_policy(model, TOKENIZER, tmp_path / "model")
    loaded, tokenizer = load_policy(tmp_path / "model"), load_tokenizer(tmp_path / "model")
    assert loaded.config.model_type == architecture
    assert type(loaded).__module__ == f"transformers.models.{architecture}.modeling_{architecture}"
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name
    # Attention, gated MLP of four times the width, two norms; and biases in Qwen2 alone.
    block = 4 * 32**2 + 3 * 4 * 32**2 + 2 * 32 + parameters
    assert model.num_parameters() == block + 2 * 32 * len(TOKENIZER) + 32
    chat = TOKENIZER.apply_chat_template([{"role": "user", "content": "7+5-3"}], tokenize=False)
    for text in (chat + "=7+5=2\\boxed{2}<|im_end|>", " two  words\n\u00e9\u4e2d", "def f(x):\n x=x+3"):
        assert tokenizer(text)["input_ids"] == TOKENIZER(text)["input_ids"]
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.padding_side) == ("<|im_end|>", PAD, "left")
    assert tokenizer.chat_template == TOKENIZER.chat_template


def test_a_model_of_both_tasks_sees_half_of_each_in_words_of_its_own():
    tokenizer = build_tokenizer("both")
    assert set(WORDS["arithmetic"]) | set(WORDS["programs"]) <= set(tokenizer.get_vocab())
    warmup = Warmup(task="both", steps=1, batch=400, operands=(3, 3), operations=(2, 2), problems=100)
    numbers, functions = _lessons(warmup, 0)
    assert isinstance(numbers.teacher, UnreliableTeacher)
    assert isinstance(functions.teacher, UnreliableProgrammer)
    ids, labels = next(_batches(warmup, 0, tokenizer, [numbers, functions]))
    written = tokenizer.batch_decode(torch.where(labels == IGNORED, tokenizer.pad_token_id, labels))
    asked = tokenizer.batch_decode(ids)
    programs = ["def f(x):" in text for text in written]
    assert 160 < sum(programs) < 240
    for prompt, is_program in zip(asked, programs, strict=True):
        assert any(word in prompt for word in ("add", "minus", "times", "modulo")) == is_program


def test_an_instruct_model_is_its_base_model_warmed_up_further(one_thread):
    surer = Warmup(steps=40, batch=8, operands=(3, 4), problems=200, teacher=Teacher(unreliable_share=0))
    base = warm_up(tiny(steps=40), TOKENIZER)
    instruct = warm_up(tiny(steps=40, instruct=surer), TOKENIZER)
    assert instruct.log[:40] == base.log
    assert [entry.step for entry in instruct.log] == list(range(1, 81))
    assert instruct.statistics["teacher_accuracy"] > base.statistics["teacher_accuracy"]
    assert instruct.statistics["loss"] == pytest.approx(sum(entry.loss for entry in instruct.log[-4:]) / 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "programs", "operands": (2, 3)}, "operands with task programs; allowed: with task arithmetic"),
        ({"operations": (1, 2)}, "operations with task arithmetic; allowed: with task programs or both"),
    ],
)
def test_a_length_of_the_other_task_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Warmup(steps=1, **changes)


def test_an_instruct_model_speaks_the_language_of_its_base_model():
    with pytest.raises(ValueError, match=r"found programs; allowed: arithmetic, the task of `warmup`"):
        tiny(instruct=Warmup(task="programs", steps=1))


def test_building_a_model_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_model(tiny(), TOKENIZER)
    assert torch.equal(torch.rand(3), expected)


def test_labels_cover_exactly_the_solution_and_its_end():
    teacher = UnreliableTeacher(Teacher(unreliable_share=0, reliable=(1, 1)))
    ids, labels = next(_batches(tiny().warmup, 0, TOKENIZER, [_Lessons(teacher, ["7+5-3", "1+1"])]))
    for row, label in zip(ids, labels, strict=True):
        if TOKENIZER.decode(row[label == IGNORED]).startswith("<|im_start|>user\n7"):
            expected = "=7+5=2-3=9\\boxed{9}<|im_end|>"
        else:
            expected = "=1+1=2\\boxed{2}<|im_end|>"
        assert TOKENIZER.decode(label[label != IGNORED]) == expected
        assert torch.equal(row[label != IGNORED], label[label != IGNORED])


def test_warm_up_is_bit_equal_for_one_seed_and_differs_for_another(one_thread):
    first, again, other = (warm_up(tiny(seed=seed), TOKENIZER) for seed in (1, 1, 2))
    assert first.log == again.log
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name
    assert first.log != other.log


def test_warm_up_starts_at_a_loss_of_ignorance_and_learns(one_thread):
    result = warm_up(tiny(steps=60, width=64, heads=2, kv_heads=2), TOKENIZER)
    losses = [entry.loss for entry in result.log]
    assert len(losses) == 60
    assert losses[0] == pytest.approx(math.log(len(TOKENIZER)), abs=0.6)
    assert losses[-1] < losses[0] / 2
    assert 0 < result.statistics["teacher_entropy"] < result.statistics["loss"]
    assert not result.model.training
    rates = [entry.learning_rate for entry in result.log]
    assert max(rates) == pytest.approx(3e-3)
    assert rates[-1] == pytest.approx(3e-3 / 59)


def test_a_saved_policy_loads_equal_and_replaces_an_older_one(tmp_path):
    folder = tmp_path / "models" / "tiny"
    older = build_model(tiny(seed=1), TOKENIZER)
    model = build_model(tiny(seed=2), TOKENIZER)
    save_policy(older, TOKENIZER, folder)
    save_policy(model, TOKENIZER, folder)
    assert [entry.name for entry in folder.parent.iterdir()] == ["tiny"]
    loaded, tokenizer = load_policy(folder, torch.float32), load_tokenizer(folder)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name
    text = "<|im_start|>user\n7+5-3<|im_end|>\n<|im_start|>assistant\n=7+5=2-3=9\\boxed{9}<|im_end|>"
    assert tokenizer(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    without_marks = "user\n7+5-3\nassistant\n=7+5=2-3=9\\boxed{9}"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == without_marks
    assert tokenizer.chat_template == TOKENIZER.chat_template
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.padding_side == "left"
    assert load_policy(folder, "bfloat16").dtype == torch.bfloat16


def test_a_failed_save_leaves_the_old_policy(tmp_path, monkeypatch):
    folder = tmp_path / "tiny"
    save_policy(build_model(tiny(), TOKENIZER), TOKENIZER, folder)
    before = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    broken = build_model(tiny(seed=9), TOKENIZER)
    monkeypatch.setattr(type(TOKENIZER), "save_pretrained", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_policy(broken, TOKENIZER, folder)
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny"]


def test_a_path_without_a_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*missing: a model"):
        load_policy(tmp_path / "missing")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"does not hold a model: config\.json is missing, found notes\.txt"):
        load_policy(tmp_path)
    with pytest.raises(ValueError, match="does not hold a tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no \*\.safetensors"):
        load_policy(tmp_path)


def test_a_warm_up_tells_how_far_it_is_now_and_then(capsys):
    short = Warmup(steps=4, batch=8, operands=(3, 4), problems=200)
    told = []
    warm_up(tiny(steps=6, instruct=short), TOKENIZER, lambda done, steps: told.append((done, steps)))
    assert told == [(done, 10) for done in range(10)]
    seconds = 0.0
    progress = Progress("nano", 10, lambda: seconds)
    for done in range(5):
        seconds = 4.0 * done
        progress(done, 10)
    assert capsys.readouterr().out.splitlines() == [
        "nano: warming up for 10 steps",
        "nano: step 3/10 of the warm-up, 28 s left",
    ]
