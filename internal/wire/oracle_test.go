package wire_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/acm"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/schemas"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/middleware"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"
	"github.com/aws/smithy-go/transport/http/protocol/awsquery"

	"serin/internal/stage"
	"serin/internal/wire"
)

// services is every service that the stage registers.
func services(t *testing.T) []*wire.Service {
	t.Helper()
	s, err := stage.New(stage.Config{Dir: t.TempDir(), Ephemeral: true, Account: "000000000000", Region: "us-east-1", Endpoint: "localhost:4566", Speed: 1, IAM: stage.Enforce, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s.Services()
}

// The SDK's own clients are the oracle: for each registered operation they
// write an input with every member filled, and our decoder must see the same
// value; we write a filled output, and they must read the same value.
func TestTheSDKAndWeUnderstandEachOther(t *testing.T) {
	for _, s := range services(t) {
		if s.Name == "ec2" {
			continue // the SDK's package is too large to link; the AWS CLI is its oracle
		}
		for name, op := range s.Ops() {
			protocols := []wire.Protocol{s.Protocol}
			if s.Protocol == wire.Query && s.Target != "" {
				protocols = append(protocols, wire.JSON10, wire.CBOR)
			}
			for _, p := range protocols {
				t.Run(fmt.Sprintf("%s:%s/%d", s.Name, name, p), func(t *testing.T) {
					for seed := range uint64(5) {
						understand(t, s, op, p, seed)
					}
				})
			}
		}
	}
}

// understand sends one filled input and one filled output of an operation.
func understand(t *testing.T, s *wire.Service, op *wire.Op, p wire.Protocol, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 7))
	in, out := op.New()
	f := filler{r, s.Naming.Unions}
	f.fill(reflect.ValueOf(in).Elem(), 0)
	f.fill(reflect.ValueOf(out).Elem(), 0)
	var seen any
	var problem error
	client := clientFor(s.Name, p, func(req *http.Request) *http.Response {
		seen, problem = s.Decode(op, p, req)
		kind, answer := s.Encode(p, op.Name, out)
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(bytes.NewReader(answer)), Request: req}
	})
	results := reflect.ValueOf(client).MethodByName(op.Name).Call([]reflect.Value{reflect.ValueOf(t.Context()), reflect.ValueOf(in)})
	if err, _ := results[1].Interface().(error); err != nil {
		t.Fatalf("the client says: %v", err)
	}
	if problem != nil {
		t.Fatalf("we say: %v", problem)
	}
	if !reflect.DeepEqual(seen, in) {
		t.Errorf("sent\n%s\nand we read\n%s", show(in), show(seen))
	}
	got := results[0].Interface()
	reflect.ValueOf(got).Elem().FieldByName("ResultMetadata").Set(reflect.ValueOf(middleware.Metadata{}))
	if utc(reflect.ValueOf(got)); !reflect.DeepEqual(got, out) {
		t.Errorf("we wrote\n%s\nand the client read\n%s", show(out), show(got))
	}
}

type doer func(*http.Request) *http.Response

func (d doer) Do(r *http.Request) (*http.Response, error) { return d(r), nil }

func clientFor(service string, p wire.Protocol, do doer) any {
	c := aws.Config{Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""), HTTPClient: do, RetryMaxAttempts: 1}
	switch service {
	case "ecs":
		return ecs.NewFromConfig(c)
	case "ecr":
		return ecr.NewFromConfig(c)
	case "logs":
		return cloudwatchlogs.NewFromConfig(c)
	case "iam":
		return iam.NewFromConfig(c)
	case "sts":
		return sts.NewFromConfig(c)
	case "elasticloadbalancing":
		return elb.NewFromConfig(c)
	case "acm":
		return acm.NewFromConfig(c)
	case "autoscaling":
		return autoscaling.NewFromConfig(c)
	case "cloudwatch":
		return cloudwatch.NewFromConfig(c, func(o *cloudwatch.Options) {
			switch p {
			case wire.JSON10:
				o.Protocol = awsjson.New10(schemas.GraniteServiceVersion20100801)
			case wire.Query:
				o.Protocol = awsquery.New(schemas.GraniteServiceVersion20100801)
			}
		})
	}
	panic("no client for " + service)
}

// filler gives every member a value, and of a union one that is performed.
type filler struct {
	r      *rand.Rand
	unions []any
}

// fill fills a value. Times are whole seconds, strings carry what a codec may
// stumble over; unions of which nothing is performed are left out, and documents,
// which stagetest sends and reads.
func (f filler) fill(v reflect.Value, depth int) {
	r := f.r
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), depth)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1_700_000_000+int64(r.IntN(1e8)), 0).UTC()))
			return
		}
		for i := range v.NumField() {
			if m := v.Type().Field(i); m.IsExported() && m.Name != "ResultMetadata" {
				f.fill(v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		if depth > 11 || v.Type().Elem().Kind() == reflect.Interface {
			return
		}
		n := 1 + r.IntN(2)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			f.fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for i := range 2 {
			value := reflect.New(v.Type().Elem()).Elem()
			f.fill(value, depth+1)
			v.SetMapIndex(reflect.ValueOf(fmt.Sprint("key", i)).Convert(v.Type().Key()), value)
		}
	case reflect.Interface:
		for _, u := range f.unions {
			if t := reflect.TypeOf(u); t.Implements(v.Type()) {
				v.Set(reflect.New(t.Elem()))
				f.fill(v.Elem().Elem(), depth+1)
			}
		}
	case reflect.String:
		v.SetString([]string{"plain", `<&"'>`, "tief grün 한", "two\nlines", " spaces "}[r.IntN(5)])
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(1 + r.IntN(1000)))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(float64(r.IntN(1000))/8 + 0.125)
	}
}

// utc puts every time into UTC: the CBOR client reads them as local ones.
func utc(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			utc(v.Elem())
		}
	case reflect.Struct:
		if t, ok := v.Interface().(time.Time); ok {
			v.Set(reflect.ValueOf(t.UTC()))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				utc(v.Field(i))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			utc(v.Index(i))
		}
	}
}

func show(v any) string {
	return strings.ReplaceAll(fmt.Sprintf("%+v", deref(reflect.ValueOf(v))), " ResultMetadata:{values:map[]}", "")
}

// deref prints through pointers.
func deref(v reflect.Value) any {
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Struct:
		if t, ok := v.Interface().(time.Time); ok {
			return t
		}
		out := map[string]any{}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && !v.Field(i).IsZero() {
				out[f.Name] = deref(v.Field(i))
			}
		}
		return out
	case reflect.Slice:
		var out []any
		for i := range v.Len() {
			out = append(out, deref(v.Index(i)))
		}
		return out
	}
	return v.Interface()
}

// Every member of every input is in a list, and every listed one exists. When
// an update of the SDK adds a member this is red until somebody decides.
func TestEveryMemberIsPerformedRecordedOrRefused(t *testing.T) {
	for _, s := range services(t) {
		missing, unknown := s.Unlisted()
		if len(missing) > 0 {
			t.Errorf("%s: nobody decided what is done with %s", s.Name, strings.Join(missing, ", "))
		}
		if len(unknown) > 0 {
			t.Errorf("%s: there is no %s", s.Name, strings.Join(unknown, ", "))
		}
	}
}

// Every operation of the SDK's client is registered or refused by name, and what
// is refused or has a bucket exists.
func TestEveryOperationIsPerformedOrRefused(t *testing.T) {
	for _, s := range services(t) {
		if s.Refused == "" {
			continue
		}
		exists, refused := map[string]bool{}, strings.Fields(s.Refused)
		client := reflect.TypeOf(clientFor(s.Name, s.Protocol, nil))
		for i := range client.NumMethod() {
			// Operations take a context, an input and options.
			if m := client.Method(i); m.Type.NumIn() == 4 && m.Type.IsVariadic() {
				exists[m.Name] = true
			}
		}
		for name := range exists {
			if performed := s.Ops()[name] != nil; performed == slices.Contains(refused, name) {
				t.Errorf("%s:%s is performed: %t, and refused: %[3]t", s.Name, name, performed)
			}
		}
		for _, name := range slices.Concat(refused, slices.Collect(maps.Keys(s.Buckets))) {
			if !exists[name] {
				t.Errorf("there is no operation %s:%s", s.Name, name)
			}
		}
	}
}

func gateway(s *wire.Service) *wire.Gateway {
	g := &wire.Gateway{Log: slog.New(slog.DiscardHandler), Region: "us-east-1", Account: "000000000000",
		Authenticate: func(*http.Request, []byte, *wire.Service) (wire.Principal, string, error) {
			return wire.Principal{Account: "000000000000", Admin: true}, "us-east-1", nil
		},
		Authorize: func(context.Context, *wire.Call, []wire.Check) error { return nil },
	}
	g.Serve(s)
	return g
}

var rewrite = flag.Bool("rewrite", false, "regenerate docs/support.md")

// docs/support.md is made from the lists that the gateway enforces.
func TestTheSupportTableIsCurrent(t *testing.T) {
	var b strings.Builder
	b.WriteString("# What is performed\n\nMade from the lists that the stage enforces: `go test ./internal/wire -rewrite`.\n\n" +
		"*Performed* members have their effect. *Recorded* ones are stored and echoed, without effect. *Refused* ones give an error that names them. *Ignored* ones have no effect on AWS either.\n")
	for _, s := range services(t) {
		fmt.Fprintf(&b, "\n## %s\n\n| structure | performed | recorded | refused | ignored |\n|---|---|---|---|---|\n", s.Name)
		what := map[string]map[string][]string{}
		for _, row := range s.Supported() {
			if what[row.Structure] == nil {
				what[row.Structure] = map[string][]string{}
			}
			what[row.Structure][row.What] = append(what[row.Structure][row.What], row.Member)
		}
		for name := range s.Ops() {
			if what[name] == nil {
				what[name] = map[string][]string{}
			}
		}
		for _, structure := range slices.Sorted(maps.Keys(what)) {
			name := structure
			if s.Ops()[structure] != nil {
				name = "**" + structure + "**"
			}
			fmt.Fprintf(&b, "| %s |", name)
			for _, kind := range []string{"performed", "recorded", "refused", "ignored"} {
				fmt.Fprintf(&b, " %s |", strings.Join(what[structure][kind], " "))
			}
			b.WriteString("\n")
		}
		if s.Refused != "" {
			fmt.Fprintf(&b, "\nOperations that are refused: %s.\n", strings.Join(strings.Fields(s.Refused), " "))
		}
	}
	const file = "../../docs/support.md"
	if *rewrite {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil || string(have) != b.String() {
		t.Error("docs/support.md is not current; go test ./internal/wire -rewrite makes it")
	}
}
