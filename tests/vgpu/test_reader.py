"""What the PTX reader takes, and how it refuses the rest: with the line of the text."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ptx import PtxError, run_ptx, run_text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("frobnicate.u32 %r0, %r1;", "the instruction frobnicate is not known"),
        ("add.odd.u32 %r0, %r1, %r2;", "add.odd.u32 is not known in this form"),
        ("ld.global.v8.f32 %f0, [%in0];", "not known in this form"),
        ("wgmma.mma_async.sp.sync.aligned.m64n8k8.f32.tf32.tf32 {%f0};", "not known in this form"),
        ("barrier.cluster.arrive.acquire;", "not known in this form"),
        ("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f0};", "not known in this form"),
        ("cp.async.bulk.commit_group;", "not known in this form"),
        ("call.uni helper, ();", "a call of helper, which is not in this module"),
        ("add.u32 %r0, %r1;", "expected ','"),
        ("add.u32 %r0, %r1, %r2", "expected ';'"),
        ("add.u32 %r0, %r1, %unknown;", 'unknown operand "%unknown"'),
        ("add.u32 %r0, %r1, %l2;", "a register of another size"),
        ("add.u32 %r0, %p0, %r1;", "a register of another size or kind"),
        ("mov.u32 %r0, %pm3;", 'unknown operand "%pm3"'),
        ("ld.global.u32 %r0, [%nowhere];", 'unknown address "%nowhere"'),
        ("bra nowhere;", "no label nowhere"),
        ("again: again: mov.u32 %r0, 1;", "label again again"),
        ("@%r0 mov.u32 %r1, 1;", "no predicate: %r0"),
        ("mov.u32 %r0, 12q;", 'expected a number, got "12q"'),
        ("mov.f32 %f0, 1.5;", "expected a number"),
        ("shfl.idx.b32 %r0, %r1, 0, 31;", "not known in this form"),
        (".branchtargets a;", "directive .branchtargets in a kernel"),
        ("ld.u32 %h0, [%in0];", "smaller than the access"),
        ("lop3.b32 %r0, %r1, %r2, %r3, 256;", "not known in this form"),
    ],
)
def test_what_is_refused(body: str, message: str) -> None:
    first = 2  # lines of the body below `first`
    text = "\n" * first + body
    with pytest.raises(PtxError, match=re.escape(message)) as error:
        run_ptx(text, [np.zeros(4, np.uint32)], [], block=1)
    assert re.match(r"line \d+: ", str(error.value))


def test_the_line_of_an_error_is_the_text_s() -> None:
    text = "// a comment\n.version 8.3\n/* two\nlines */ .target sm_90a\n.address_size 64\n"
    text += ".entry test()\n{\n\nfrobnicate;\n}\n"
    with pytest.raises(PtxError, match="line 9: the instruction frobnicate"):
        run_text(text, b"")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "not PTX"),
        (".version 8.3\n.target sm_90\n.odd\n", "line 3: directive .odd"),
        (".version 8.3\n.address_size 32\n", "line 2: only .address_size 64"),
        (".version 8.3\n.global .u32 a[2] = {1, 2, 3};\n", "line 2: more initialisers"),
        (".version 8.3\n.global .u64 a = b;\n", "line 2: an initialiser that is no number"),
        (".version 8.3\n.entry test()\n{\n", "a '{' without its '}'"),
        (".version 8.3\n.entry other() { ret; }", "no such kernel"),
    ],
)
def test_modules_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(PtxError, match=re.escape(message)):
        run_text(text, b"")


def test_names_in_scopes() -> None:
    """A register, a label or a prefix of an inner block hides that of an outer one."""
    body = """
    .reg .b32 %x; mov.u32 %x, 1;
    { .reg .b32 %x; .reg .b32 %y<2>; mov.u32 %x, 2; mov.u32 %y1, 3;
      bra here; mov.u32 %x, 9; here: st.global.u32 [%out0+4], %x; st.global.u32 [%out0+8], %y1; }
    { bra here; mov.u32 %x, 7; here: st.global.u32 [%out0], %x; }
    """
    [out] = run_ptx(body, [], [np.zeros(3, np.uint32)], block=1)
    assert out.tolist() == [1, 2, 3]


def test_literals() -> None:
    body = """
    mov.u32 %r0, 0x1F; mov.u32 %r1, 017; mov.u32 %r2, 0b101; mov.u32 %r3, -2; mov.u32 %r4, 7U;
    mov.f32 %f0, 0f40490FDB; mov.f64 %d0, 0d3FF8000000000000; mov.f64 %d1, 0fC0000000;
    st.global.v4.u32 [%out0], {%r0, %r1, %r2, %r3}; st.global.u32 [%out0+16], %r4;
    st.global.f32 [%out0+20], %f0; st.global.v2.f64 [%out0+32], {%d0, %d1};
    """
    [out] = run_ptx(body, [], [np.zeros(12, np.uint32)], block=1)
    assert out[:6].tolist() == [31, 15, 5, 0xFFFFFFFE, 7, 0x40490FDB]
    assert out[8:].view(np.float64).tolist() == [1.5, -2.0]


def test_a_register_lives_around_a_loop() -> None:
    """What is written before a loop and read in its second round keeps its place."""
    body = """
    mov.u32 %r0, 5; mov.u32 %r1, 0; mov.u32 %r2, 0;
    again: add.u32 %r2, %r2, %r0; mov.u32 %r3, %r2; mul.lo.u32 %r4, %r3, 1; add.u32 %r1, %r1, 1;
    setp.lt.u32 %p0, %r1, 3; @%p0 bra again;
    st.global.u32 [%out0], %r4;
    """
    [out] = run_ptx(body, [], [np.zeros(1, np.uint32)], block=1)
    assert out.tolist() == [15]


def test_messages_name_the_line_of_the_source() -> None:
    body = ".loc 1 33 3\nld.global.u32 %r0, [%in0+64];"
    with pytest.raises(PtxError, match=r"kernel\.cu:33"):
        run_ptx(body, [np.zeros(4, np.uint32)], [], block=1, module='.file 1 "kernel.cu"')
