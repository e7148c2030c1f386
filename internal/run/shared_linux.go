package run

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Processes and memory that the containers of a task share: namespaces of a process
// beside them that does nothing but reap, as the pause container of an ECS agent is.
// It ends with the task's shim, and all that is left of them with it.

// sharedMemoryDir, in the task's directory, is /dev/shm of containers that share it.
const sharedMemoryDir = "shm"

// share starts that process and has this thread, from which containers are started,
// enter its namespaces.
func (h *nativeHost) share() error {
	spec := h.plan.Spec
	if !spec.SharedPIDs && !spec.SharedIPC {
		return nil
	}
	cmd, err := initCommand("serin-hold", execConfig{})
	if err != nil {
		return err
	}
	kinds := map[string]int{}
	if spec.SharedPIDs {
		kinds["pid"] = unix.CLONE_NEWPID
	}
	if spec.SharedIPC {
		kinds["ipc"] = unix.CLONE_NEWIPC
		if err := os.Mkdir(sharedMemoryDir, 0o755); err != nil {
			return fmt.Errorf("making the memory that containers share: %w", err)
		}
		if err := os.Chmod(sharedMemoryDir, 0o777|os.ModeSticky); err != nil {
			return fmt.Errorf("making the memory that containers share: %w", err)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true, Cloneflags: unix.CLONE_NEWPID} // as process 1 it may ask to end with the shim
	for _, flag := range kinds {
		cmd.SysProcAttr.Cloneflags |= uintptr(flag)
	}
	if _, err := h.children.start(cmd); err != nil {
		return fmt.Errorf("sharing the task's processes: %w", err)
	}
	for kind, flag := range kinds {
		if err := setns(fmt.Sprint(cmd.Process.Pid), kind, flag); err != nil {
			return err
		}
	}
	return nil
}

// holdMain is that process: process 1 of what the containers share.
func holdMain() error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	for range died {
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if pid <= 0 && err != syscall.EINTR {
				break
			}
		}
	}
	return nil
}
