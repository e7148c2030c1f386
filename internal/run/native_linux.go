package run

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// newHost is the shim's side of a task, by its runtime.
func newHost(p plan, children *reaper) host {
	switch p.Mode {
	case "native":
		return &nativeHost{plan: p, children: children}
	case "rootless":
		return &rootlessHost{redirects: redirects{plan: p}, children: children}
	}
	return &confinedHost{redirects{plan: p}}
}

// nativeHost has the task's network, which its starter lays, and its cgroups.
type nativeHost struct {
	plan plan
	groups
	children *reaper
	waiting  map[string]*os.File // container → the pipe its init waits on
}

func (h *nativeHost) address() (at addresses, err error) {
	if err := unix.Sethostname([]byte(hostnameAt(h.plan.Address))); err != nil {
		return at, fmt.Errorf("naming the task's host: %w", err)
	}
	if err := setSysctls(h.plan.Spec.Sysctls); err != nil {
		return at, err
	}
	if err := h.share(); err != nil {
		return at, err
	}
	h.limit(h.plan.Spec)
	at.task = h.plan.Address
	for i, c := range h.plan.Configs {
		if c.Apart {
			unix.CloseOnExec(firstNetwork + i)
		}
		if h.plan.Spec.Network == BridgeNetwork {
			at.containers = append(at.containers, c.Address)
		}
	}
	return at, nil
}

// hostnameAt is the name of a machine by its address, as EC2 has it.
func hostnameAt(address string) string { return "ip-" + strings.ReplaceAll(address, ".", "-") }

func (h *nativeHost) command(c execConfig) (*exec.Cmd, error) {
	wait, start, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if h.waiting == nil {
		h.waiting = map[string]*os.File{}
	}
	h.waiting[c.Name] = start
	cmd, err := initCommand("serin-native-init", c)
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{wait} // fd 4
	if c.Apart {
		network, err := networkOf(h.plan, c) // fd 5
		if err != nil {
			return nil, err
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, network)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if !c.SharedPIDs {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWPID
	}
	if !c.SharedIPC {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWIPC
	}
	if c.Hostname != "" {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUTS
	}
	return cmd, nil
}

// initCommand is this program again, as a helper for one container. It finds its
// configuration in its environment.
func initCommand(as string, c execConfig) (*exec.Cmd, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", as)
	cmd.Env = []string{"SERIN_INIT=" + string(raw)}
	return cmd, nil
}

// started lets the init go on once it is under its limits.
func (h *nativeHost) started(c execConfig, cmd *exec.Cmd) error {
	defer h.waiting[c.Name].Close()
	return h.join(c.Name, cmd.Process.Pid)
}

func (h *nativeHost) close() { h.destroy() }
