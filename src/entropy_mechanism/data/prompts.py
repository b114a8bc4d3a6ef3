r"""How a problem is put to a policy: the turns of a chat, in named styles.

`paper-…` are the prompts of the data files that belong to arXiv 2505.22617, which train and test differently.
Their system prompts are quoted, since a prompt in other words is another experiment: the first is that of LUFFY
(arXiv 2504.14945), the second that of Eurus-2 (arXiv 2502.01456). `qwen25-math-cot` is that of Qwen2.5-Math's
evaluation.
"""

from collections.abc import Callable

from entropy_mechanism.config import PromptStyle

Message = dict[str, str]

BOXED = "Present the answer in LaTeX format: \\boxed{Your answer}."
THOUGHT_AND_SOLUTION = (
    "Your task is to follow a systematic, thorough reasoning process before providing the final solution. This "
    "involves analyzing, summarizing, exploring, reassessing, and refining your thought process through multiple "
    "iterations. Structure your response into two sections: Thought and Solution. In the Thought section, present "
    'your reasoning using the format: "<think>\n {thoughts} </think>\n". Each thought should include detailed '
    'analysis, brainstorming, verification, and refinement of ideas. After "</think>\n," in the Solution section, '
    "provide the final, logical, and accurate answer, clearly derived from the exploration in the Thought "
    "section. If applicable, include the answer in \\boxed{} for closed-form results like multiple choices or "
    "mathematical solutions."
)
ACTIONS = (
    "\nWhen tackling complex reasoning tasks, you have access to the following actions. Use them as needed to "
    "progress through your thought process.\n\n[ASSESS]\n\n[ADVANCE]\n\n[VERIFY]\n\n[SIMPLIFY]\n\n"
    "[SYNTHESIZE]\n\n[PIVOT]\n\n[OUTPUT]\n\n"
    "You should strictly follow the format below:\n\n[ACTION NAME]\n\n# Your action step 1\n\n"
    "# Your action step 2\n\n# Your action step 3\n\n...\n\nNext action: [NEXT ACTION NAME]\n\n"
)
STEP_BY_STEP = "Please reason step by step, and put your final answer within \\boxed{}."
PROGRAM = "Write a Python program or function that solves this. End with the whole code in one ```python block."


def _system(text: str) -> Message:
    return {"role": "system", "content": text}


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


STYLES: dict[PromptStyle, Callable[[str], list[Message]]] = {
    "plain": lambda problem: [_user(problem)],
    "paper-train": lambda problem: [_user(f"{problem}\n\n{BOXED}")],
    "paper-eval": lambda problem: [_system(THOUGHT_AND_SOLUTION), _user(f"{problem}\n{BOXED}")],
    "paper-eval-omni": lambda problem: [_system(ACTIONS), _user(f"{problem}\n\n{BOXED}")],
    "qwen25-math-cot": lambda problem: [_system(STEP_BY_STEP), _user(problem)],
    "code": lambda problem: [_user(f"{problem}\n\n{PROGRAM}")],
}


def chat(style: PromptStyle, problem: str) -> list[Message]:
    """The turns that ask `problem` in a style; the tokenizer's chat template makes text of them."""
    return STYLES[style](problem)
