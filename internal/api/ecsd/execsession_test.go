package ecsd

import (
	"slices"
	"strings"
	"testing"
)

func TestACommandIsSplitAsTheAgentDoes(t *testing.T) {
	for command, want := range map[string][]string{
		"":                           {"sh"},
		" \t":                        {"sh"},
		"ls -l  /tmp":                {"ls", "-l", "/tmp"},
		`/bin/sh -c "echo 'a b'; x"`: {"/bin/sh", "-c", "echo 'a b'; x"},
		`a\ b '\c' "\"d" "" $X*`:     {"a b", `\c`, `"d`, "", "$X*"},
	} {
		if got, err := splitCommand(command); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q is %q, %v, want %q", command, got, err, want)
		}
	}
	for _, command := range []string{`a "b`, `a 'b`, `a\`} {
		if got, err := splitCommand(command); err == nil {
			t.Errorf("%q is %q", command, got)
		}
	}
}

func TestATranscriptHasAnEventForEachLine(t *testing.T) {
	var lines []string
	log := &transcript{put: func(line string) error { lines = append(lines, line); return nil }}
	long := strings.Repeat("x", eventBytes+3)
	for _, piece := range []string{"$ l", "s\r\n", "a\r\nb", "\n\n", long, "\n", "end"} {
		if n, err := log.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}
	log.flush()
	if want := []string{"$ ls", "a", "b", long[:eventBytes], "xxx", "end"}; !slices.Equal(lines, want) {
		t.Errorf("it has %d events, want %d", len(lines), len(want))
	}
}
