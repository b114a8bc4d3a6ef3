"""How problems are put to a policy, and which tokens end its response."""

from pathlib import Path
from typing import get_args

import pandas as pd
import pytest

from entropy_mechanism.config import PromptStyle
from entropy_mechanism.data.problems import Problem, to_frame
from entropy_mechanism.data.prompts import STYLES, chat
from entropy_mechanism.models.load import load_tokenizer
from entropy_mechanism.models.tiny import build_tokenizer
from entropy_mechanism.stages.render_prompts import text
from entropy_mechanism.stages.runtime import questions, stop_ids

DOCS = Path(__file__).parents[2] / "docs/data.md"
PROBLEM = "What is $1+1$?"


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "problems.parquet"
    to_frame([Problem("a", "x", PROBLEM, "2"), Problem("b", "x", "7+5", "2")]).to_parquet(path, index=False)
    return path


def asked(tokenizer, path, *style):
    return [tokenizer.decode(question.prompt_ids) for question in questions(path, tokenizer, *style)]


def test_the_settings_know_exactly_the_styles_there_are():
    assert set(get_args(PromptStyle)) == set(STYLES)


def test_plain_prompts_are_the_problem_in_a_user_turn(tokenizer, file):
    expected = [f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in (PROBLEM, "7+5")]
    assert asked(tokenizer, file) == asked(tokenizer, file, "plain") == expected


def test_every_style_asks_the_problem_in_its_last_turn():
    for style in STYLES:
        turns = chat(style, PROBLEM)
        assert [turn["role"] for turn in turns] in (["user"], ["system", "user"])
        assert turns[-1]["content"].startswith(PROBLEM)


def test_the_papers_training_prompt_has_no_system_turn_and_asks_for_a_box():
    request = "Present the answer in LaTeX format: \\boxed{Your answer}."
    assert chat("paper-train", PROBLEM) == [{"role": "user", "content": f"{PROBLEM}\n\n{request}"}]


def test_the_papers_system_prompts_have_the_lengths_of_its_files():
    assert len(chat("paper-eval", PROBLEM)[0]["content"]) == 762
    assert len(chat("paper-eval-omni", PROBLEM)[0]["content"]) == 385


def test_a_style_reaches_the_policy(tokenizer, file):
    first = asked(tokenizer, file, "qwen25-math-cot")[0]
    system = (
        "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
    )
    assert first == f"{system}<|im_start|>user\n{PROBLEM}<|im_end|>\n<|im_start|>assistant\n"


def test_a_tokenizer_without_a_chat_template_is_an_error_that_says_what_to_do(file):
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(
        ValueError, match="no chat template, so no plain prompt can be made; write one as `chat_template`"
    ):
        questions(file, tokenizer)


def test_a_models_own_template_takes_the_place_of_the_tokenizers(file, tmp_path):
    bare = build_tokenizer()
    bare.chat_template = None
    bare.save_pretrained(tmp_path / "bare")
    own = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}Answer:"
    tokenizer = load_tokenizer(tmp_path / "bare", own)
    assert asked(tokenizer, file, "plain")[0] == f"{PROBLEM}\nAnswer:"
    tokenizer.save_pretrained(tmp_path / "trained")
    assert asked(load_tokenizer(tmp_path / "trained"), file, "plain")[0] == f"{PROBLEM}\nAnswer:"


def test_the_end_of_sequence_token_ends_a_response_unless_others_are_named(tokenizer):
    end, pad = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert stop_ids(tokenizer, None) == (tokenizer.eos_token_id,) == (end,)
    assert stop_ids(tokenizer, ["<|endoftext|>", "<|im_end|>", "<|endoftext|>"]) == (pad, end)


def test_stop_tokens_that_are_none_are_named(tokenizer):
    with pytest.raises(
        ValueError, match=r"stop: '</s>', 'two words' is no token .* special tokens are .*<\|im_end\|>"
    ):
        stop_ids(tokenizer, ["<|im_end|>", "</s>", "two words"])


def test_the_examples_in_the_documentation_are_those_of_the_code():
    document = DOCS.read_text(encoding="utf-8")
    assert document.endswith(text()), "renew them: see the line above the examples in docs/data.md"


def test_files_from_before_tests_and_repeats_are_read(tmp_path, tokenizer):
    frame = to_frame([Problem("a", "x", PROBLEM, "2")]).drop(columns=["tests", "repeats"])
    frame.to_parquet(tmp_path / "old.parquet", index=False)
    assert [question.answer for question in questions(tmp_path / "old.parquet", tokenizer)] == ["2"]
    assert pd.read_parquet(tmp_path / "old.parquet").columns.tolist() == [
        "id",
        "source",
        "problem",
        "answer",
        "metadata",
    ]
