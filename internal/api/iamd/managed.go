package iamd

import (
	"bytes"
	"embed"
	"encoding/json"
	"strings"
	"time"
)

// AWS's own managed policies, those that the release path and its operators
// name, each as AWS publishes it: documented on its reference page, with the
// version and date of the file. https://docs.aws.amazon.com/aws-managed-policy/latest/reference/policy-list.html
//
//go:embed managed/*.json
var managedFiles embed.FS

// awsPolicies reads the embedded policies, by ARN.
func awsPolicies() map[string]managed {
	files, err := managedFiles.ReadDir("managed")
	if err != nil { // the files are part of the program
		panic(err)
	}
	out := map[string]managed{}
	for _, f := range files {
		raw, err := managedFiles.ReadFile("managed/" + f.Name())
		if err != nil {
			panic(err)
		}
		var p struct {
			Path, Version string
			Created       time.Time
			Document      json.RawMessage
		}
		if err := json.Unmarshal(raw, &p); err != nil {
			panic("iamd: " + f.Name() + ": " + err.Error())
		}
		var text bytes.Buffer
		if err := json.Compact(&text, p.Document); err != nil {
			panic(err)
		}
		name := strings.TrimSuffix(f.Name(), ".json")
		m := managed{Name: name, ID: "ANPA" + strings.ToUpper(name), Path: p.Path, ARN: "arn:aws:iam::aws:policy" + p.Path + name, Created: p.Created,
			Default: p.Version, Versions: []version{{ID: p.Version, Document: text.String(), Created: p.Created}}}
		out[m.ARN] = m
	}
	return out
}
