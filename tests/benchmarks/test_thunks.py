"""How many kernels, launches and waits XLA's list of a program's operations says."""

import pytest

# As XLA writes it: a loop over epochs whose body draws an order or not, takes blocks of steps in
# one graph, and the rest in kernels of their own.
LISTING = """\
001: kCopy         [source       | next=002 (1)] kCopy
002: kWhile        [prev=001 (1) | sink        ] \t
condition:
    003: kCustomKernel [source | sink] compare grid: [1, 1, 1] threads: [1, 1, 1]
  body:
    004: kConditional  [source       | next=009 (1)]
      false_branch:
        No thunks.      true_branch:
        005: kCustomKernel [source       | next=006 (1)] sort
        006: kCustomKernel [prev=005 (1) | sink        ] sort
    009: kWhile         [prev=004 (1) | next=020 (1)] \t
condition:
        010: kCustomKernel [source | sink] compare
      body:
        000: kCommandBuffer [source | sink]
            011: kCustomKernel [source       | next=012 (1)] gather
            012: kCustomKernel [prev=011 (1) | next=013 (1)] gemm
            013: kCopy         [prev=012 (1) | sink        ] kCopy
        1014: kConvolution [prev=000 (1) | sink] kConvolution
    020: kWhile         [prev=009 (1) | sink        ] \t
condition:
        021: kCustomKernel [source | sink] compare
      body:
        022: kCustomKernel [source | sink] gather
        023: kConvolution  [source | sink] kConvolution
"""


@pytest.fixture
def thunks(benchmark_of):
    return benchmark_of("thunks")


def test_a_graph_is_one_launch_and_a_turn_of_a_loop_one_wait(thunks):
    copy, epochs = thunks.parse(LISTING)
    assert (copy.kind, epochs.kind) == ("Copy", "While")
    blocks, rest = thunks.turns([copy, epochs], within=1)
    # A compare, the three of the graph, and a convolution.
    assert blocks == thunks.Counts(kernels=5, launches=3, waits=1)
    assert rest == thunks.Counts(kernels=3, launches=3, waits=1)
    # Of branches that which takes most; the loops within count as a turn each.
    assert thunks.turns([copy, epochs], within=0) == [
        thunks.Counts(kernels=1 + 2 + 5 + 3, launches=1 + 2 + 3 + 3, waits=4)
    ]


# The program of that list, as far as its loops: that over the rest is of nine turns here.
PROGRAM = """\
%less (arg: (s32[])) -> pred[] {
  ROOT %c = pred[] compare(%a, %b), direction=LT
}
%blocks.1 (arg: (s32[])) -> (s32[]) {
  ROOT %cc = s32[] custom-call(%a), custom_call_target="gemm"
}
%epoch (arg: (s32[])) -> (s32[]) {
  %choice = s32[] conditional(%p, %a, %a), branch_computations={%less, %less}
  %while.1 = (s32[]) while(%t), condition=%less, body=%blocks.1
  ROOT %while.2 = (s32[]) while(%t), condition=%less, body=%blocks.1, """ + (
    """backend_config={"known_trip_count":{"n":"9"}}
}
ENTRY %main (arg: s32[]) -> s32[] {
  %while.3 = (s32[]) while(%t), condition=%less, body=%epoch
}
"""
)


def test_a_loop_of_known_turns_takes_all_of_them_and_no_wait(thunks, benchmark_of):
    _, epochs = thunks.parse(LISTING, PROGRAM)
    blocks, rest = thunks.turns([epochs], within=1)
    # The order, a turn of the blocks with its wait and compare, and nine of the rest without.
    assert epochs.turn() == thunks.Counts(
        kernels=1 + 2 + 5 + 9 * 2, launches=1 + 2 + 3 + 9 * 2, waits=1 + 1 + 1
    )
    assert (blocks.waits, rest) == (1, thunks.Counts(kernels=2, launches=2, waits=0))
    found = benchmark_of("gpu_compiled").counts_of_steps([LISTING], 4, PROGRAM)
    assert found == (blocks, rest)
    with pytest.raises(ValueError, match="3 loops are listed, and the program has 0"):
        thunks.parse(LISTING, "ENTRY %main (arg: s32[]) -> s32[] {\n}")


def test_a_choice_within_a_graph_is_no_wait(thunks):
    text = """\
000: kCommandBuffer [source | sink]
    001: kConditional [source | sink]
      branch_0:
        002: kCustomKernel [source | sink] one
      branch_1:
        003: kCustomKernel [source | next=004] one
        004: kCustomKernel [prev=003 | sink] two
"""
    assert thunks.total(thunks.parse(text)) == thunks.Counts(kernels=2, launches=1, waits=0)


def test_what_is_no_list_is_refused(thunks, benchmark_of, tmp_path):
    with pytest.raises(ValueError, match="no operation that is understood"):
        thunks.parse("HloModule jit_train")
    counts_of_steps = benchmark_of("gpu_compiled").counts_of_steps
    (tmp_path / "module_1.train.thunk_sequence_after_thunk_passes.txt").write_text(LISTING)
    listings = thunks.listings(tmp_path)
    assert [count.kernels for count in counts_of_steps(listings, 4)] == [5, 3]
    for found, block, said in (([], 4, "0 lists"), (listings, 1, "2 loops over steps")):
        with pytest.raises(ValueError, match=said):
            counts_of_steps(found, block)
