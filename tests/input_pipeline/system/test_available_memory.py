"""Available memory of the machine, and of a container or a batch job with less."""

import pathlib

import pytest

from input_pipeline.system import available_memory

GB = 10**9
V1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
V2 = "memory.max", "memory.current", "inactive_file"


@pytest.fixture
def machine(tmp_path):
    """Returns the root of a machine with 8 GB available and no control groups."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(
        f"MemTotal: {16 * GB // 1024} kB\nMemAvailable:  {8 * GB // 1024} kB\n"
    )
    return tmp_path


def put_in_group(machine, line, folder, names, limit, used, files):
    """Puts the process into a control group with this limit, usage and page cache in bytes."""
    (machine / "proc/self/cgroup").write_text(f"5:cpuset:/elsewhere\n{line}\n")
    group = machine / "sys/fs/cgroup" / folder
    group.mkdir(parents=True, exist_ok=True)
    (group / names[0]).write_text(f"{limit}\n")
    (group / names[1]).write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 17\n{names[2]} {files}\n")


def available(machine):
    return pytest.approx(available_memory.available_bytes(machine), abs=2048)


def test_without_cgroups_the_machine_decides(machine):
    assert available(machine) == 8 * GB


@pytest.mark.parametrize(
    ("line", "folder", "names"),
    [
        ("0::/job/step", "job/step", V2),
        ("0::/job/step", "job", V2),  # the limit of the outer group
        ("0::/", "", V2),  # a container with a separate cgroup namespace
        ("0::/../outer", "", V2),
        ("4:memory:/job/step", "memory/job/step", V1),
        ("4:memory:/outside/of/the/container", "memory", V1),
        ("3:cpu,memory:/job", "memory/job", V1),
    ],
)
def test_cgroup_limits_the_memory(machine, line, folder, names):
    """Of 4 GB, 3 are used, but 1 of them is inactive page cache: 2 are available."""
    put_in_group(machine, line, folder, names, 4 * GB, 3 * GB, GB)
    assert available(machine) == 2 * GB


@pytest.mark.parametrize("limit", ["max", 2**63 - 4096])
def test_cgroup_without_a_limit(machine, limit):
    put_in_group(machine, "0::/job", "job", V2, limit, 3 * GB, GB)
    assert available(machine) == 8 * GB


def test_smallest_cgroup_decides(machine):
    put_in_group(machine, "0::/job/step", "job/step", V2, 9 * GB, 6 * GB, 0)
    put_in_group(machine, "0::/job/step", "job", V2, 7 * GB, 6 * GB, 0)
    assert available(machine) == GB


def test_cgroup_above_its_limit_has_nothing(machine):
    put_in_group(machine, "0::/job", "job", V2, GB, 2 * GB, 0)
    assert available_memory.available_bytes(machine) == 0


def test_available_memory_of_this_machine():
    if not pathlib.Path("/proc/meminfo").exists():
        pytest.skip("no /proc")
    assert 0 < available_memory.available_bytes() < 2**50
