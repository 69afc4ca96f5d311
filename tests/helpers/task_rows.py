"""Stand-in documents for lmms-eval's own tasks: what their process_results leave, and what it comes to.

Each case has two documents, the first answered right and the second wrong. `python -m task_rows` in
tests/helpers prints the list that research/scored-tasks.md holds.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_topoprune.results.sample_files import read_columns, samples_path
from lmms_topoprune.results.scores import UnitScores, task_scores

Doc = dict[str, Any]
MMMU = {"question_type": "multiple-choice", "options": "['red', 'blue', 'green']"}
MMBENCH = {
    **{"index": 1, "question": "Which color?", "answer": "B", "hint": "nan", "source": "s", "split": "dev"},
    **{"category": "color", "L2-category": "perception", "A": "red", "B": "blue", "C": "green", "D": "nan"},
}
CAPTION = ["a red circle on a table", "one red circle"]
CIDER = (5.830279, 0.0)
SEED = {"answer": "B", "question_id": "q1", "data_type": "Scene Understanding"}


@dataclass(frozen=True)
class Case:
    """A task of lmms-eval.

    Attributes:
        task: its name.
        function: module below lmms_eval.tasks, and name of its process_results.
        docs: two documents, or one that both answers are about.
        right, wrong: answers of a model.
        scores: of the two documents, or None where only lmms-eval's own number is there.
        own_scale: whether scores may be above 1.
    """

    task: str
    function: str
    docs: Doc | tuple[Doc, Doc]
    right: Any
    wrong: Any
    scores: tuple[float, float] | None = (1.0, 0.0)
    own_scale: bool = False

    def rows(self) -> list[dict[str, Any]]:
        """What lmms-eval logs of the two documents."""
        module, _, name = self.function.partition(":")
        process = getattr(importlib.import_module(f"lmms_eval.tasks.{module}"), name)
        docs = self.docs if isinstance(self.docs, tuple) else (self.docs, self.docs)
        found = []
        for i, (doc, answer) in enumerate(zip(docs, (self.right, self.wrong), strict=True)):
            logged = process(json.loads(json.dumps(doc)), [answer])
            found.append(
                {"doc_id": i, "input": f"question {i}", "target": "", **json.loads(json.dumps(logged))}
            )
        return found


def scored(case: Case) -> UnitScores:
    """The case's scores, read from files as lmms-eval would have written them."""
    rows = case.rows()
    metrics = [name for name in rows[0] if name not in ("doc_id", "input", "target", "submission")]
    results = {
        "results": {case.task: {f"{name},none": 0.5 for name in metrics}},
        "configs": {case.task: {}},
        "higher_is_better": {case.task: dict.fromkeys(metrics, True)},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1_results.json"
        samples_path(path, case.task).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return task_scores(case.task, read_columns(path, case.task, metrics), results)[case.task]


def listing() -> str:
    """The list of research/scored-tasks.md, as Markdown."""
    lines = ["| task | what is used | from |", "|---|---|---|"]
    for case in sorted(CASES, key=lambda case: case.task):
        found = scored(case)
        used = found.metric if found.units else "lmms-eval's own number, without an interval"
        lines.append(f"| {case.task} | {used} | `{case.function.partition(':')[2]}` |")
    return "\n".join(lines) + "\n"


def numbered(doc: Doc, key: str) -> tuple[Doc, Doc]:
    """A document twice, with names of its own."""
    return {**doc, key: 1}, {**doc, key: 2}


CASES = (
    Case("pope", "pope.utils:pope_process_results", numbered({"answer": "yes"}, "question_id"), "Yes", "no"),
    Case(
        "chartqa",
        "chartqa.utils:chartqa_process_results",
        {"type": "human_test", "answer": "10"},
        "10.2",
        "12",
    ),
    Case(
        "scienceqa_img", "scienceqa.utils:sqa_process_results", {"choices": ["a", "b"], "answer": 1}, "B", "A"
    ),
    Case(
        "textvqa_val",
        "textvqa.utils:textvqa_process_results",
        {"answers": ["red"] * 10, "question_id": 1},
        "red",
        "blue",
    ),
    Case(
        "ok_vqa_val2014",
        "ok_vqa.utils:ok_vqa_process_results",
        {"answers": ["red"] * 10, "question_id": 1},
        "red",
        "blue",
    ),
    Case(
        "vqav2_val",
        "vqav2.utils:vqav2_process_results_val",
        {"answers": [{"answer": "red", "answer_id": i} for i in range(10)], "question_id": 1},
        "red",
        "blue",
    ),
    Case("realworldqa", "realworldqa.utils:realworldqa_process_results", {"answer": "B"}, "B", "A"),
    Case(
        "ocrbench",
        "ocrbench.utils:ocrbench_process_results",
        {"answer": ["stop"], "dataset": "IIIT5K", "question_type": "Regular Text Recognition"},
        "Stop",
        "go",
    ),
    Case("countbenchqa", "countbenchqa.utils:countbenchqa_process_results", {"number": 3}, "3", "4"),
    Case("mtvqa", "mtvqa.utils:mtvqa_process_results", {"answer": "rot", "category": "DE"}, "Rot.", "blau"),
    Case(
        "blink",
        "blink.utils:blink_process_results",
        {"answer": "(B)", "choices": ["x", "y"], "idx": "1", "sub_task": "Depth"},
        "(B)",
        "(A)",
    ),
    Case(
        "cv_bench",
        "cv_bench.utils:cv_bench_process_results",
        {"answer": "(B)", "idx": 1, "type": "2D", "task": "Count", "source": "s"},
        "(B)",
        "(A)",
    ),
    Case(
        "mvbench_action_count",
        "mvbench.utils:mvbench_process_results",
        {"candidates": ["one", "two"], "answer": "two"},
        "B",
        "A",
    ),
    Case(
        "mmvp",
        "mmvp.utils:mmvp_process_results",
        numbered({"Correct Answer": "(a)", "answer": "(a)", "options": "(a) x (b) y"}, "Index"),
        "(a)",
        "(b)",
    ),
    Case(
        "vlmsareblind",
        "vlmsareblind.utils:vlmsareblind_process_results",
        {"task": "Counting Grid - Blank Grids", "groundtruth": "5,6"},
        "{5} {6}",
        "{4} {6}",
    ),
    Case(
        "mmstar",
        "mmstar.utils:mmstar_process_results",
        numbered({"answer": "A", "category": "math", "l2_category": "geometry"}, "index"),
        "A",
        "B",
    ),
    Case("seedbench", "seedbench.utils:seed_process_result", SEED, "B. blue", "A"),
    Case("seedbench_2", "seedbench_2.utils:seed_process_result", SEED, "B", "A"),
    Case(
        "mmmu_val",
        "mmmu.utils:mmmu_process_results",
        {**MMMU, "id": "validation_Art_1", "answer": "B"},
        "B",
        "A",
    ),
    Case(
        "mmmu_val (open)",
        "mmmu.utils:mmmu_process_results",
        {"question_type": "open", "options": "[]", "answer": "12.5", "id": "validation_Math_1"},
        "The answer is 12.5.",
        "The answer is 13.",
    ),
    Case(
        "mmmu_pro_standard",
        "mmmu_pro.utils:mmmu_pro_process_results",
        {"id": "1", "subject": "Art", "answer": "B", "question": "q", "options": "['x', 'y']"},
        "B",
        "A",
    ),
    Case(
        "mmmu_pro_composite",
        "mmmu_pro.utils:mmmu_pro_composite_process_results",
        {"id": "1", "subject": "Art", "answer": "['A', 'B']"},
        "A, B",
        "C, D",
    ),
    Case("mmbench_en_dev", "mmbench.en_utils:mmbench_process_results", MMBENCH, "B", "A. red"),
    Case("mmbench_cn_dev", "mmbench.cn_utils:mmbench_process_results", MMBENCH, "blue", "green"),
    Case(
        "videomme",
        "videomme.utils:videomme_process_results",
        numbered(
            {
                **{"answer": "B", "domain": "d", "sub_category": "s", "task_type": "t"},
                **{"duration": "short", "videoID": "v"},
            },
            "question_id",
        ),
        "B",
        "A",
    ),
    Case(
        "iconqa_test",
        "iconqa.utils:test_process_results",
        {"question_id": 1, "answer": "circle"},
        "circle",
        "square",
    ),
    Case(
        "multidocvqa_val",
        "multidocvqa.utils:multidocvqa_process_results",
        {"questionId": 1, "answers": "['stop']"},
        "stop",
        "go on",
    ),
    Case(
        "egoschema",
        "egoschema.utils:egoschema_process_results_generation",
        {"video_idx": "v", "answer": 1, "option": [f"{c}. {c * 3}" for c in "ABCDE"]},
        "B",
        "A",
    ),
    Case(
        "refcoco_bbox_rec_val",
        "refcoco.utils_rec:refcoco_bbox_rec_process_result",
        {"question_id": 1, "answer": "cup", "bbox": [0.0, 0.0, 0.5, 0.5]},
        "[0, 0, 0.5, 0.5]",
        "[0.6, 0.6, 0.9, 0.9]",
    ),
    Case(
        "coco2017_cap_val",
        "coco_cap.utils:coco_process_result",
        (
            {"question_id": "000000000001.jpg", "id": 1, "answer": CAPTION},
            {"question_id": "000000000002.jpg", "id": 2, "answer": ["two dogs run on the beach"]},
        ),
        CAPTION[0],
        "a car",
        CIDER,
        True,
    ),
    Case(
        "nocaps_val",
        "nocaps.utils:nocaps_process_result",
        (
            {"image_id": 1, "annotations_captions": CAPTION},
            {"image_id": 2, "annotations_captions": ["two dogs run on the beach"]},
        ),
        CAPTION[0],
        "a car",
        CIDER,
        True,
    ),
    Case(
        "textcaps_val",
        "textcaps.utils:textcaps_process_result",
        (
            {"image_id": 1, "caption_str": CAPTION},
            {"image_id": 2, "caption_str": ["two dogs run on the beach"]},
        ),
        CAPTION[0],
        "a car",
        CIDER,
        True,
    ),
    Case(
        "flickr30k_test",
        "flickr30k.utils:flickr_process_result",
        ({"img_id": 1, "caption": CAPTION}, {"img_id": 2, "caption": ["two dogs run on the beach"]}),
        CAPTION[0],
        "a car",
        CIDER,
        True,
    ),
    Case(
        "coco2017_cap_test",
        "coco_cap.utils:coco_test_process_result",
        {"question_id": "000000000001.jpg", "id": 1},
        "a",
        "b",
        None,
    ),
    Case(
        "naturalbench",
        "naturalbench.utils:naturalbench_process_results",
        {"Index": 1, "Question_Type": "yes_no"},
        "Yes",
        "No",
        None,
    ),
)

if __name__ == "__main__":
    print(listing())
