"""Cores, memory and address space: what a container or a shell leaves to a process."""

import os
import resource

import pytest

from lth_jax.system import machine
from lth_jax.system.machine import addresses, cores, cpu_quota, memory

# What the files say -> cores; the names are those of the kernel's documentation.
GROUPS = {
    "none": ({}, None),
    "no limit": ({"cgroup": "0::/", "fs/cpu.max": "max 100000"}, None),
    "two cores": ({"cgroup": "0::/", "fs/cpu.max": "200000 100000\n"}, 2.0),
    "half a core": ({"cgroup": "0::/job", "fs/job/cpu.max": "50000 100000"}, 0.5),
    "of a group around it": (
        {"cgroup": "0::/a/b", "fs/a/b/cpu.max": "max 100000", "fs/a/cpu.max": "150000 100000"},
        1.5,
    ),
    "the least of several": (
        {"cgroup": "0::/a/b", "fs/a/b/cpu.max": "400000 100000", "fs/a/cpu.max": "100000 100000"},
        1.0,
    ),
    "a container's, named outside": (
        {"cgroup": "0::/../docker/1f2e", "fs/cpu.max": "100000 100000"},
        1.0,
    ),
    "version 1": (
        {
            "cgroup": "5:memory:/x\n4:cpu,cpuacct:/docker/1f2e\n0::/\n",
            "fs/cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
            "fs/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "fs/memory/x/cpu.cfs_quota_us": "1",
            "fs/memory/x/cpu.cfs_period_us": "100000",
        },
        3.0,
    ),
    "version 1 without a limit": (
        {
            "cgroup": "4:cpu:/",
            "fs/cpu/cpu.cfs_quota_us": "-1",
            "fs/cpu/cpu.cfs_period_us": "100000",
        },
        None,
    ),
    "damaged": ({"cgroup": "0::/\nx\n:\n", "fs/cpu.max": "much"}, None),
}


@pytest.mark.parametrize("name", GROUPS)
def test_the_quota_is_that_of_the_control_groups(name, tmp_path):
    files, quota = GROUPS[name]
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "fs") == quota


@pytest.mark.parametrize(
    ("quota", "count"), [(None, 4), (0.1, 1), (1.0, 1), (1.5, 2), (4.0, 4), (9.0, 4)]
)
def test_no_more_cores_than_affinity_and_quota_leave(quota, count, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 4, 6}, raising=False)
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert cores() == count


def test_address_space_is_what_the_shell_leaves(monkeypatch):
    for limit, left in ((2**31, 2**31), (resource.RLIM_INFINITY, None)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limit=limit: (limit, limit))
        assert addresses() == left


# What the files say -> bytes, of a machine that has more.
MEMORY = {
    "none": ({}, None),
    "no limit": ({"cgroup": "0::/", "fs/memory.max": "max\n"}, None),
    "a megabyte": ({"cgroup": "0::/", "fs/memory.max": "1048576\n"}, 2**20),
    "of a group around it": (
        {"cgroup": "0::/a/b", "fs/a/b/memory.max": "max", "fs/a/memory.max": "1048576"},
        2**20,
    ),
    "version 1": (
        {"cgroup": "5:memory:/job", "fs/memory/job/memory.limit_in_bytes": "1048576"},
        2**20,
    ),
    "damaged": ({"cgroup": "0::/\nx\n", "fs/memory.max": "much"}, None),
}


@pytest.mark.parametrize("name", MEMORY)
def test_memory_is_what_the_machine_and_its_control_groups_leave(name, tmp_path):
    files, limit = MEMORY[name]
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    found = memory(tmp_path / "cgroup", tmp_path / "fs")
    assert found == (limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def test_memory_is_no_more_than_the_address_space(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "addresses", lambda: 2**20)
    assert memory(tmp_path, tmp_path) == 2**20
