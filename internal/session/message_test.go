package session

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

// What the plugin's own serialisation makes of a message, written down by hand.
func TestAMessageIsWrittenAsThePluginReadsIt(t *testing.T) {
	m := Message{Type: Input, Version: 1, Created: time.UnixMilli(1_700_000_000_000), Sequence: 7, Flags: 3, Payload: Text, Data: []byte("ls")}
	for i := range m.ID {
		m.ID[i] = byte(i)
	}
	want := "00000074" + hex.EncodeToString([]byte("input_stream_data"+strings.Repeat(" ", 15))) + "00000001" + "0000018bcfe56800" + "0000000000000007" + "0000000000000003" +
		"08090a0b0c0d0e0f0001020304050607" + "c7b68ac37f364473e922936708e7f43c293dd07b295171566c07ff5fe024fab9" + "00000001" + "00000002" + "6c73"
	if got := hex.EncodeToString(m.Bytes()); got != want {
		t.Errorf("it is\n%s, want\n%s", got, want)
	}
	back, err := Parse(m.Bytes())
	if err != nil || back.Type != m.Type || back.ID != m.ID || !back.Created.Equal(m.Created) || back.Sequence != 7 || back.Flags != 3 || back.Payload != Text || string(back.Data) != "ls" {
		t.Errorf("it is read as %+v, %v", back, err)
	}
	if id := uuid(m.ID); id != "00010203-0405-0607-0809-0a0b0c0d0e0f" {
		t.Errorf("its id is %s", id)
	}
}

func TestWhatIsNoMessageIsSaid(t *testing.T) {
	whole := Message{Type: Input, Data: []byte("ls")}.Bytes()
	for name, change := range map[string]func([]byte) []byte{
		"less than a header":       func(b []byte) []byte { return b[:overhead-1] },
		"header says":              func(b []byte) []byte { b[3] = 115; return b },
		"bytes of data":            func(b []byte) []byte { return b[:len(b)-1] },
		"not have its digest":      func(b []byte) []byte { b[len(b)-1] = 'x'; return b },
		"a message has no type":    func(b []byte) []byte { copy(b[typeAt:versionAt], bytes.Repeat([]byte{0}, 32)); return b },
		"3 bytes of data and has ": func(b []byte) []byte { b[overhead-1] = 3; return b },
	} {
		if _, err := Parse(change(bytes.Clone(whole))); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("it says %v, want %q", err, name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(Message{Type: Input, Sequence: 1, Payload: Text, Data: []byte("ls")}.Bytes())
	f.Add(Message{Type: Ack, Data: []byte(`{"AcknowledgedMessageSequenceNumber":1}`)}.Bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := Parse(raw)
		if err == nil {
			again, err := Parse(m.Bytes())
			if err != nil || again.Type != m.Type || again.ID != m.ID || again.Sequence != m.Sequence || !bytes.Equal(again.Data, m.Data) {
				t.Fatalf("%+v became %+v, %v", m, again, err)
			}
		}
		c := NewChannel(true)
		c.Take(raw, true, time.Time{})
	})
}
