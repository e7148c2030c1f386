package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/spf13/cobra"

	"serin/internal/memnet"
)

const (
	defaultPort    = 4566
	defaultRegion  = "us-east-1"
	defaultAccount = "000000000000"
)

// target is where a verb's calls go: the stage, or AWS.
type target struct {
	name, endpoint, region, profile string
}

// targetFlags adds the flags that choose a target.
func (a *app) targetFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&a.target.name, "target", "stage", "stage or aws")
	f.StringVar(&a.target.endpoint, "endpoint-url", "", "the stage's address (AWS_ENDPOINT_URL, else http://localhost:4566)")
	f.StringVar(&a.target.region, "region", "", "AWS region (AWS_REGION, AWS_DEFAULT_REGION)")
	f.StringVar(&a.target.profile, "profile", "", "AWS profile")
}

func (a *app) endpointFlag(c *cobra.Command) {
	c.Flags().StringVar(&a.target.endpoint, "endpoint-url", "", "the stage's address (AWS_ENDPOINT_URL, else http://localhost:4566)")
}

// stageURL is the address of the stage.
func (a *app) stageURL() string {
	a.target.endpoint = strings.TrimSuffix(cmp.Or(a.target.endpoint, os.Getenv("AWS_ENDPOINT_URL"), fmt.Sprintf("http://localhost:%d", defaultPort)), "/")
	return a.target.endpoint
}

// nearby calls a stage, which answers faster than the SDK's own client expects.
var nearby = &http.Client{Transport: memnet.Transport{Transport: http.DefaultTransport.(*http.Transport).Clone()}}

// aws is the SDK's configuration for the target. Before anything on AWS is
// changed, the account and region are said.
func (a *app) aws(ctx context.Context, changes bool) (aws.Config, error) {
	t := &a.target
	var options []func(*config.LoadOptions) error
	region := cmp.Or(t.region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"))
	switch t.name {
	case "stage":
		options = append(options, config.WithBaseEndpoint(a.stageURL()), config.WithRegion(cmp.Or(region, defaultRegion)))
		if os.Getenv("AWS_ACCESS_KEY_ID") == "" && t.profile == "" {
			options = append(options, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("test", "test", "")))
		}
	case "aws":
		if t.endpoint != "" {
			return aws.Config{}, usage("--endpoint-url goes with --target stage")
		}
		if region != "" {
			options = append(options, config.WithRegion(region))
		}
	default:
		return aws.Config{}, usage("--target must be stage or aws, got %q", t.name)
	}
	if t.profile != "" {
		options = append(options, config.WithSharedConfigProfile(t.profile))
	}
	c, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return c, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	if t.name == "stage" {
		c.HTTPClient = nearby
	}
	if t.name == "aws" && changes {
		who, err := sts.NewFromConfig(c).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		if err != nil {
			return c, fmt.Errorf("asking AWS who calls: %w", err)
		}
		fmt.Fprintf(a.err, "AWS account %s, region %s, as %s\n", *who.Account, c.Region, *who.Arn)
	}
	return c, nil
}

func (a *app) ecs(ctx context.Context, changes bool) (*ecs.Client, error) {
	c, err := a.aws(ctx, changes)
	if err != nil {
		return nil, err
	}
	return ecs.NewFromConfig(c), nil
}

// ask calls the stage's own introspection.
func (a *app) ask(ctx context.Context, method, path, body string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, a.stageURL()+path, strings.NewReader(body))
	if err != nil {
		return usage("the endpoint %q is not a URL: %v", a.target.endpoint, err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("calling the stage: %w", err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("reading the stage's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var e struct{ Error string }
		if json.Unmarshal(raw, &e) == nil && e.Error != "" {
			return fmt.Errorf("the stage refused: %s", e.Error)
		}
		return fmt.Errorf("the stage answered %s: %s", resp.Status, strings.TrimSpace(string(raw)))
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("reading the stage's answer: %w", err)
	}
	return nil
}
