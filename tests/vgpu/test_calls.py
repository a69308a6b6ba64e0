"""Functions that nvcc did not inline: call, ret and the variables of a call. PTX ISA, "Control Flow
Instructions: call, ret" and "Parameter State Space"."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ptx import PtxError, run_ptx

# mix(a, b) = 3 a + b; mix_twice(a) = mix(mix(a, 1), a) = 3 (3 a + 1) + a = 10 a + 3; the
# variables of its calls have the names of its caller's.
MIX = """
.func (.param .b32 result) mix(.param .b32 first, .param .b32 second)
{
  .reg .b32 %r<4>;
  ld.param.u32 %r1, [first];
  ld.param.u32 %r2, [second];
  mad.lo.u32 %r3, %r1, 3, %r2;
  st.param.b32 [result], %r3;
  ret;
}
.func (.param .b32 result2) mix_twice(.param .b32 first2)
{
  .reg .b32 %r<6>;
  ld.param.u32 %r1, [first2];
  {
    .param .b32 param0; .param .b32 param1; .param .b32 retval0;
    st.param.b32 [param0], %r1;
    st.param.b32 [param1+0], 1;
    call.uni (retval0), mix, (param0, param1);
    ld.param.b32 %r2, [retval0];
  }
  {
    .param .b32 param0; .param .b32 param1; .param .b32 retval0;
    st.param.b32 [param0], %r2;
    st.param.b32 [param1], %r1;
    call.uni (retval0), mix, (param0, param1);
    ld.param.b32 %r3, [retval0+0];
  }
  st.param.b32 [result2], %r3;
  ret;
}
"""
# Calls it with the thread's number, and stores the result.
STORE = "mad.wide.u32 %l0, %t, 4, %out0; st.global.u32 [%l0], %r1;"


def called(function: str) -> str:
    return f"""{{
      .param .b32 param0; .param .b32 retval0;
      st.param.b32 [param0], %t;
      call.uni (retval0), {function}, (param0);
      ld.param.b32 %r1, [retval0];
    }}"""


def run(body: str, module: str, block: int = 32) -> list[int]:
    [y] = run_ptx(body, [], [np.full(block, 99, np.uint32)], module=module, block=block)
    return [int(value) for value in y]


def test_nested_calls() -> None:
    assert run(called("mix_twice") + STORE, MIX) == [10 * t + 3 for t in range(32)]


def test_some_lanes_call_and_return_in_turn() -> None:
    """Odd threads call; those above 20 return early; all meet again behind the call."""
    module = """
    .func (.param .b32 result) early(.param .b32 given)
    {
      .reg .b32 %r<4>; .reg .pred %p<2>;
      ld.param.u32 %r1, [given];
      st.param.b32 [result], 7;
      setp.gt.u32 %p1, %r1, 20;
      @%p1 ret;
      setp.gt.u32 %p1, %r1, 10;
      @%p1 bra $above;
      st.param.b32 [result], 5;
      ret;
    $above:
      st.param.b32 [result], 6;
      ret;
    }"""
    body = f"""
      mov.u32 %r1, 0;
      and.b32 %r2, %t, 1;
      setp.eq.u32 %p0, %r2, 0;
      @%p0 bra $behind;
      {called("early")}
    $behind:
      vote.sync.ballot.b32 %r3, 1, 0xffffffff;
      {STORE}
    """
    expected = [0 if t % 2 == 0 else 5 if t <= 10 else 6 if t <= 20 else 7 for t in range(32)]
    assert run(body, module) == expected


def test_a_structure_by_value_and_a_pointer_and_no_result() -> None:
    module = """
    .func write(.param .b64 to, .param .align 8 .b8 pair[16])
    {
      .reg .b64 %rd<4>; .reg .b32 %r<2>;
      ld.param.u64 %rd1, [to];
      ld.param.u32 %r1, [pair+8];
      st.global.u32 [%rd1], %r1;
      ret;
    }
    .func nothing() { ret; }"""
    body = """{
      .param .b64 param0; .param .align 8 .b8 param1[16];
      mad.wide.u32 %l0, %t, 4, %out0;
      add.u32 %r1, %t, 40;
      st.param.b64 [param0], %l0;
      st.param.b32 [param1+4], 1;
      st.param.b32 [param1+8], %r1;
      setp.lt.u32 %p0, %t, 30;
      @%p0 call write, (param0, param1);
      call nothing;
    }"""
    assert run(body, module) == [*range(40, 70), 99, 99]


def test_shared_memory_that_only_a_function_names() -> None:
    """Both calls of it mean the same variable, which is the block's: it grows by 1 a call."""
    module = """
    .shared .align 4 .b32 tally;
    .func add() { .reg .b32 %r<2>; atom.shared.add.u32 %r1, [tally], 1; ret; }
    .func (.param .b32 result) sum()
    { .reg .b32 %r<2>; ld.shared.u32 %r1, [tally]; st.param.b32 [result], %r1; ret; }
    .func clear() { .reg .b32 %r<2>; mov.u32 %r1, 0; st.shared.u32 [tally], %r1; ret; }"""
    body = f"""
      setp.eq.u32 %p0, %t, 0;
      @%p0 call clear;
      bar.sync 0;
      call.uni add;
      call.uni add;
      bar.sync 0;
      {{ .param .b32 retval0; call.uni (retval0), sum; ld.param.b32 %r1, [retval0]; }}
      {STORE}
    """
    assert run(body, module, block=64) == [128] * 64


@pytest.mark.parametrize(
    ("module", "body", "what"),
    [
        ("", "call.uni (%r1), %l1, (%r2), prototype;", "call by the address %l1: .* not implem"),
        ("", "p: .callprototype _ (.param .b32 _);", "call by an address: .* not implemented"),
        (".extern .func away();", "call away;", "a call of away, which is not in this module"),
        (
            ".func r(.reg .b32 %a) { ret; }",
            "call r, (%r1);",
            "r, whose parameters are registers",
        ),
        (".func a() { call b; ret; } .func b() { call a; ret; }", "call a;", "a, which has called"),
        (MIX, "call mix;", "call of mix with 0 parameters or results instead of 1"),
        (
            ".func f(.param .b32 x) { ret; }",
            "call f, (%r1);",
            "with %r1, .* no .param variable",
        ),
    ],
)
def test_what_is_refused(module: str, body: str, what: str) -> None:
    """By name, when the kernel is first launched: other kernels of the module run."""
    if body.startswith("call a;"):  # each is declared before the other's body
        module = ".func b(); " + module
    with pytest.raises(PtxError, match=f"line [0-9]+: .*{what}"):
        run(body, module)
    assert run("mov.u32 %r1, 2;" + STORE, module) == [2] * 32


def test_the_place_of_a_fault_names_the_call() -> None:
    module = """.file 1 "of.cu"
    .func broken() {
      .loc 1 5 3
      trap;
    }"""
    body = ".loc 1 9 1\ncall.uni broken;\n.loc 1 10 1\nmov.u32 %r1, 1;"
    with pytest.raises(PtxError, match=re.escape("of.cu:5 (broken), called at of.cu:9")):
        run(body, module)
