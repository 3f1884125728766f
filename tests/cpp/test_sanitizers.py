"""The C++ tests under sanitizers."""

import pytest
from cmake_project import NEEDS_CMAKE, ROOT, configure, gtest_option, run
from native import json_option

pytestmark = NEEDS_CMAKE


@pytest.mark.parametrize(
    ("sanitizers", "target", "tests"), [("address,undefined", "all", "."), ("thread", "mfik_thread_test", "Threads")]
)
def test_cpp_tests_pass_under_sanitizers(tmp_path, sanitizers, target, tests):
    options = [f"-DMFIK_SANITIZE={sanitizers}", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1"]
    configure(ROOT, tmp_path, *json_option(), *gtest_option(), *options, "-DMFIK_BUILD_TOOLS=OFF")
    run("cmake", "--build", tmp_path, "--target", target)
    out = run("ctest", "--test-dir", tmp_path, "--output-on-failure", "--no-tests=error", "-R", tests)
    assert "100% tests passed" in out
