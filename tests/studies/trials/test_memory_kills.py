"""The kernel's counters of out-of-memory kills, read from files in the kernel's format."""

import pytest

from studies.trials.claims import count_memory_kills, has_risen

VMSTAT = "nr_free_pages 7\noom_kill 4\n"


def write(root, **files):
    for name, text in {"proc/sys/kernel/random/boot_id": "a-boot\n", "proc/vmstat": VMSTAT, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "file", "text"),
    [
        ("0::/user/me\n", "user/me/memory.events", "low 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n"),
        ("0::/\n", "memory.events", "oom_kill 2\n"),  # in a container
        ("4:cpu,memory:/me\n0::/\n", "memory/me/memory.oom_control", "oom_kill_disable 0\noom_kill 2\n"),
    ],
    ids=["version 2", "container", "version 1"],
)
def test_control_group_counter_is_compared_before_the_machine_counter(groups, file, text, tmp_path):
    root = write(tmp_path, **{"proc/self/cgroup": groups, f"sys/fs/cgroup/{file}": text})
    before = count_memory_kills(root)
    assert list(before.values()) == [2, 4]
    (root / "proc/vmstat").write_text("oom_kill 5\n")
    assert not has_risen(before, count_memory_kills(root))  # another process was killed
    (root / "sys/fs/cgroup" / file).write_text(text.replace("oom_kill 2", "oom_kill 3"))
    assert has_risen(before, count_memory_kills(root))


def test_machine_counter_is_compared_if_the_control_group_differs(tmp_path):
    before = count_memory_kills(
        write(tmp_path, **{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.events": "oom_kill 9\n"})
    )
    write(tmp_path, **{"proc/self/cgroup": "0::/b\n", "sys/fs/cgroup/b/memory.events": "oom_kill 0\n"})
    assert not has_risen(before, count_memory_kills(tmp_path))
    (tmp_path / "proc/vmstat").write_text("oom_kill 5\n")
    assert has_risen(before, count_memory_kills(tmp_path))


def test_no_kill_is_detected_after_a_reboot_or_without_counters(tmp_path):
    before = count_memory_kills(write(tmp_path, **{"proc/self/cgroup": "0::/\n"}))
    write(tmp_path, **{"proc/sys/kernel/random/boot_id": "another\n", "proc/vmstat": "oom_kill 9\n"})
    assert not has_risen(before, count_memory_kills(tmp_path))
    assert count_memory_kills(tmp_path / "macOS") == {}
    assert not has_risen(before, {})
    assert not has_risen({}, before)
