package stage

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/acm"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"serin/internal/arn"
	"serin/internal/wire"
)

// free are the operations that no policy can take away, documented.
var free = []string{"sts:AssumeRoleWithWebIdentity", "sts:GetCallerIdentity", "sts:GetSessionToken"}

// user makes a user with a key and returns its configuration.
func user(t *testing.T, admin aws.Config, name string) aws.Config {
	t.Helper()
	i := iam.NewFromConfig(admin)
	if _, err := i.CreateUser(t.Context(), &iam.CreateUserInput{UserName: &name}); err != nil {
		t.Fatal(err)
	}
	key, err := i.CreateAccessKey(t.Context(), &iam.CreateAccessKeyInput{UserName: &name})
	if err != nil {
		t.Fatal(err)
	}
	c := admin.Copy()
	c.Credentials = credentials.NewStaticCredentialsProvider(*key.AccessKey.AccessKeyId, *key.AccessKey.SecretAccessKey, "")
	return c
}

// filled gives every member of an input a value, so that every check is asked.
func filled(v reflect.Value, member string) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.Type().Elem() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(new(time.Unix(1_700_000_000, 0))))
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		filled(v.Elem(), member)
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				filled(v.Field(i), f.Name)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Interface {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		filled(v.Index(0), member)
	case reflect.String:
		v.SetString("xx")
		if strings.HasSuffix(member, "Arn") || strings.HasSuffix(member, "Arns") {
			v.SetString("arn:aws:iam::111111111111:role/open")
		}
	case reflect.Int32, reflect.Int64:
		v.SetInt(1000)
	}
}

// caller sends one filled request of an operation and returns the error's code.
func caller(t *testing.T, s *Stage, c aws.Config, service *wire.Service, op *wire.Op, in any) string {
	t.Helper()
	var client any
	switch service.Name {
	case "ecs":
		client = ecs.NewFromConfig(c)
	case "ecr":
		client = ecr.NewFromConfig(c)
	case "logs":
		client = cloudwatchlogs.NewFromConfig(c)
	case "iam":
		client = iam.NewFromConfig(c)
	case "sts":
		client = sts.NewFromConfig(c)
	case "cloudwatch":
		client = cloudwatch.NewFromConfig(c)
	case "elasticloadbalancing":
		client = elb.NewFromConfig(c)
	case "acm":
		client = acm.NewFromConfig(c)
	case "autoscaling":
		client = autoscaling.NewFromConfig(c)
	default:
		return raw(t, s, c, service, op.Name)
	}
	results := reflect.ValueOf(client).MethodByName(op.Name).Call([]reflect.Value{reflect.ValueOf(t.Context()), reflect.ValueOf(in)})
	err, _ := results[1].Interface().(error)
	return code(err)
}

// raw is the error's code of an operation without members.
func raw(t *testing.T, s *Stage, c aws.Config, service *wire.Service, op string) string {
	t.Helper()
	_, rest, _ := strings.Cut(answer(t, s, c, service, op), "<Code>")
	got, _, _ := strings.Cut(rest, "</Code>")
	return got
}

// answer sends an operation without members as a signed form.
func answer(t *testing.T, s *Stage, c aws.Config, service *wire.Service, op string) string {
	t.Helper()
	return form(t, s, c, service, url.Values{"Action": {op}})
}

// form sends a signed form and returns the answer.
func form(t *testing.T, s *Stage, c aws.Config, service *wire.Service, values url.Values) string {
	t.Helper()
	values.Set("Version", service.Version)
	body := values.Encode()
	r, _ := http.NewRequest("POST", "http://localhost:4566/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	k, err := c.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := v4.NewSigner().SignHTTP(context.Background(), k, r, sha(body), service.Signing, "us-east-1", time.Now()); err != nil {
		t.Fatal(err)
	}
	resp, err := s.HTTPClient().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	told, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(told)
}

func denied(code string) bool {
	return slices.Contains([]string{"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}, code)
}

// Every operation names what it must be allowed.
func TestEveryOperationNamesItsPermission(t *testing.T) {
	s, _ := account(t, Enforce)
	for _, service := range s.Services() {
		for name, op := range service.Ops() {
			in, _ := op.New()
			filled(reflect.ValueOf(in).Elem(), "")
			checks := op.Checks(&wire.Call{Service: service.Name, Operation: name, Scope: arn.Scope{Account: "111111111111", Region: "us-east-1"}}, in)
			if is := slices.Contains(free, service.Name+":"+name); is != (len(checks) == 0) {
				t.Errorf("%s:%s asks for %d permissions", service.Name, name, len(checks))
			}
			for _, c := range checks {
				if vendor, action, ok := strings.Cut(c.Action, ":"); !ok || vendor == "" || action == "" || c.Resource == "" {
					t.Errorf("%s:%s asks for %q on %q", service.Name, name, c.Action, c.Resource)
				}
			}
		}
	}
}

// Every operation, five times: without a policy, with one that allows it, one
// that denies it too, one for another resource, one whose condition fails.
// Nothing that is not allowed passes.
func TestNothingUnauthorisedPasses(t *testing.T) {
	s, admin := account(t, Enforce)
	i := iam.NewFromConfig(admin)
	if _, err := i.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: new("open"), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111111111111"},"Action":["sts:AssumeRole","sts:TagSession","sts:SetSourceIdentity"]}]}`)}); err != nil {
		t.Fatal(err)
	}
	c := user(t, admin, "someone")
	statement := func(effect string, actions []string, resource, condition string) string {
		return fmt.Sprintf(`{"Effect":%q,"Action":["%s"],"Resource":%q%s}`, effect, strings.Join(actions, `","`), resource, condition)
	}
	for _, service := range s.Services() {
		for name, op := range service.Ops() {
			if slices.Contains(free, service.Name+":"+name) {
				continue
			}
			in, _ := op.New()
			if service.Name != "ec2" {
				filled(reflect.ValueOf(in).Elem(), "")
			}
			var actions []string
			for _, check := range op.Checks(&wire.Call{Service: service.Name, Operation: name, Scope: arn.Scope{Account: "111111111111", Region: "us-east-1"}, Principal: wire.Principal{User: "someone"}}, in) {
				actions = append(actions, check.Action)
			}
			allow := statement("Allow", actions, "*", "")
			for _, x := range []struct {
				what, statements string
				passes           bool
			}{
				{"no policy", "", false},
				{"an allowing policy", allow, true},
				{"an explicit deny", allow + "," + statement("Deny", actions[:1], "*", ""), false},
				{"another resource", statement("Allow", actions, "arn:aws:none:::nothing", ""), false},
				{"a condition that fails", statement("Allow", actions, "*", `,"Condition":{"StringEquals":{"aws:username":"nobody"}}`), false},
			} {
				if x.statements == "" {
					i.DeleteUserPolicy(t.Context(), &iam.DeleteUserPolicyInput{UserName: new("someone"), PolicyName: new("p")})
				} else if _, err := i.PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: new("someone"), PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[` + x.statements + `]}`)}); err != nil {
					t.Fatal(err)
				}
				if got := caller(t, s, c, service, op, in); denied(got) == x.passes {
					t.Errorf("%s:%s with %s gives %q", service.Name, name, x.what, got)
				}
			}
		}
	}
}
