package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/spf13/cobra"

	"serin/internal/image"
)

// localFlag chooses this machine instead of the target.
func localFlag(c *cobra.Command, local *bool, what string) {
	c.Flags().BoolVar(local, "local", false, what)
}

// checkLocal refuses a target where none is asked.
func checkLocal(c *cobra.Command, local bool) error {
	for _, name := range []string{"target", "endpoint-url", "region", "profile"} {
		if local && c.Flags().Changed(name) {
			return usage("--%s does not go with --local", name)
		}
	}
	return nil
}

// imageRow is an image of a list. Several tags can be one image's.
type imageRow struct {
	Repository string    `json:"repository"`
	Tags       []string  `json:"tags"`
	Digest     string    `json:"digest"`
	Size       int64     `json:"size"`
	Time       time.Time `json:"time"`
	MediaType  string    `json:"mediaType"`
	Platform   string    `json:"platform,omitempty"`
}

func (a *app) imageList() *cobra.Command {
	var local bool
	c := &cobra.Command{
		Use:   "ls [NAME]",
		Short: "List the images of the target's registry, or those kept here",
		Long: `List the images of the target's registry, all or those of one repository, the
newest first: tag, digest, compressed size, time of the push, media type. With
--local, list those that are kept on this machine, with the time they were built.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("at most one NAME can be given, got %d", len(args))
			}
			if len(args) == 1 && strings.ContainsAny(args[0], ":@") {
				return usage("NAME is a repository's, without tag or digest, got %q", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkLocal(c, local); err != nil {
				return err
			}
			repository := ""
			if len(args) == 1 {
				n, err := image.ParseName(args[0])
				if err != nil {
					return err
				}
				repository = n.Repository
			}
			return a.runList(c.Context(), repository, local)
		},
	}
	localFlag(c, &local, "list the images kept on this machine")
	a.targetFlags(c)
	a.outputFlag(c)
	return c
}

func (a *app) runList(ctx context.Context, repository string, local bool) error {
	list, when := a.registryRows, "PUSHED"
	if local {
		list, when = keptRows, "BUILT"
	}
	rows, err := list(ctx, repository)
	if err != nil {
		return err
	}
	if a.json {
		return a.report(rows)
	}
	if len(rows) == 0 {
		fmt.Fprintln(a.out, "no images")
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "REPOSITORY\tTAG\tDIGEST\tSIZE\t%s\tMEDIA TYPE\n", when)
	for _, r := range rows {
		tags := r.Tags
		if len(tags) == 0 {
			tags = []string{"-"}
		}
		for _, tag := range tags {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Repository, tag, short(r.Digest), sized(r.Size), r.Time.Format(time.RFC3339), r.MediaType)
		}
	}
	return w.Flush()
}

func keptRows(_ context.Context, repository string) ([]imageRow, error) {
	store, err := imageStore()
	if err != nil {
		return nil, err
	}
	kept, err := store.List()
	if err != nil {
		return nil, err
	}
	rows := []imageRow{}
	for _, k := range kept {
		if repository == "" || repository == k.Name.Repository {
			rows = append(rows, imageRow{k.Name.Repository, []string{k.Name.Tag}, k.Name.Digest, k.Size, k.Time, k.MediaType, k.Platform})
		}
	}
	return rows, nil
}

func (a *app) registryRows(ctx context.Context, repository string) ([]imageRow, error) {
	c, err := a.aws(ctx, false)
	if err != nil {
		return nil, err
	}
	client := ecr.NewFromConfig(c)
	repositories := []string{repository}
	if repository == "" {
		repositories = nil
		for pages := ecr.NewDescribeRepositoriesPaginator(client, &ecr.DescribeRepositoriesInput{}); pages.HasMorePages(); {
			out, err := pages.NextPage(ctx)
			if err != nil {
				return nil, fmt.Errorf("listing the repositories: %w", err)
			}
			for _, r := range out.Repositories {
				repositories = append(repositories, aws.ToString(r.RepositoryName))
			}
		}
		slices.Sort(repositories)
	}
	rows := []imageRow{}
	for _, name := range repositories {
		first := len(rows)
		for pages := ecr.NewDescribeImagesPaginator(client, &ecr.DescribeImagesInput{RepositoryName: &name}); pages.HasMorePages(); {
			out, err := pages.NextPage(ctx)
			if err != nil {
				return nil, fmt.Errorf("listing the images of %s: %w", name, err)
			}
			for _, i := range out.ImageDetails {
				slices.Sort(i.ImageTags)
				rows = append(rows, imageRow{Repository: name, Tags: append([]string{}, i.ImageTags...), Digest: aws.ToString(i.ImageDigest),
					Size: aws.ToInt64(i.ImageSizeInBytes), Time: aws.ToTime(i.ImagePushedAt), MediaType: aws.ToString(i.ImageManifestMediaType)})
			}
		}
		slices.SortFunc(rows[first:], func(a, b imageRow) int {
			return cmp.Or(b.Time.Compare(a.Time), strings.Compare(a.Digest, b.Digest))
		})
	}
	return rows, nil
}

func (a *app) imageRemove() *cobra.Command {
	var local bool
	c := &cobra.Command{
		Use:   "rm NAME[:TAG|@DIGEST]…",
		Short: "Delete images of the target's registry, or those kept here",
		Long: `Delete images of the target's registry by tag or by whole digest. A tag's image
goes with its last tag; by digest it goes with all its tags. What cannot be
deleted is said with its reason, and the exit code is 1 then. With --local,
delete those that are kept on this machine.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("NAME[:TAG] or NAME@DIGEST must be given")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkLocal(c, local); err != nil {
				return err
			}
			var names []image.Name
			for _, arg := range args {
				n, err := image.ParseName(arg)
				if err != nil {
					return err
				}
				names = append(names, n)
			}
			return a.runRemove(c.Context(), names, local)
		},
	}
	localFlag(c, &local, "delete images kept on this machine")
	a.targetFlags(c)
	a.outputFlag(c)
	return c
}

// deletion is what was deleted, and what was not.
type deletion struct {
	Deleted  []deleted `json:"deleted"`
	Failures []failed  `json:"failures"`
}

type deleted struct {
	Repository string `json:"repository"`
	Tag        string `json:"tag,omitempty"`
	Digest     string `json:"digest"`
}

type failed struct {
	Image  string `json:"image"`
	Reason string `json:"reason"`
}

func (a *app) runRemove(ctx context.Context, names []image.Name, local bool) error {
	d := deletion{Deleted: []deleted{}, Failures: []failed{}}
	var err error
	if local {
		err = d.local(names)
	} else {
		err = a.removeFromRegistry(ctx, names, &d)
	}
	for _, x := range d.Deleted { // also what went before an error
		name := x.Repository
		if x.Tag != "" {
			name += ":" + x.Tag
		}
		a.line("deleted %s %s", name, x.Digest)
	}
	if err == nil && len(d.Failures) > 0 {
		var reasons []string
		for _, f := range d.Failures {
			reasons = append(reasons, f.Image+": "+f.Reason)
		}
		err = fmt.Errorf("deleting %s", strings.Join(reasons, "; "))
	}
	return errors.Join(a.report(d), err)
}

func (d *deletion) local(names []image.Name) error {
	store, err := imageStore()
	if err != nil {
		return err
	}
	for _, n := range names {
		gone, err := store.Remove(n)
		if errors.Is(err, image.ErrNotKept) {
			d.Failures = append(d.Failures, failed{n.String(), image.ErrNotKept.Error()})
			continue
		}
		if err != nil {
			return err
		}
		for _, g := range gone {
			d.Deleted = append(d.Deleted, deleted{g.Repository, g.Tag, g.Digest})
		}
	}
	return nil
}

// mostDeleted is how many images BatchDeleteImage takes, documented.
const mostDeleted = 100

func (a *app) removeFromRegistry(ctx context.Context, names []image.Name, d *deletion) error {
	c, err := a.aws(ctx, true)
	if err != nil {
		return err
	}
	client := ecr.NewFromConfig(c)
	var order []string
	ids := map[string][]ecrtypes.ImageIdentifier{}
	for _, n := range names {
		if ids[n.Repository] == nil {
			order = append(order, n.Repository)
		}
		id := ecrtypes.ImageIdentifier{ImageTag: &n.Tag}
		if n.Digest != "" {
			id = ecrtypes.ImageIdentifier{ImageDigest: &n.Digest}
		}
		ids[n.Repository] = append(ids[n.Repository], id)
	}
	for _, repository := range order {
		for batch := range slices.Chunk(ids[repository], mostDeleted) {
			out, err := client.BatchDeleteImage(ctx, &ecr.BatchDeleteImageInput{RepositoryName: &repository, ImageIds: batch})
			if err != nil {
				return fmt.Errorf("deleting images of %s: %w", repository, err)
			}
			for _, id := range out.ImageIds {
				d.Deleted = append(d.Deleted, deleted{repository, aws.ToString(id.ImageTag), aws.ToString(id.ImageDigest)})
			}
			for _, f := range out.Failures {
				n := image.Name{Repository: repository}
				if f.ImageId != nil {
					n.Tag, n.Digest = aws.ToString(f.ImageId.ImageTag), aws.ToString(f.ImageId.ImageDigest)
				}
				d.Failures = append(d.Failures, failed{n.String(), fmt.Sprintf("%s: %s", f.FailureCode, aws.ToString(f.FailureReason))})
			}
		}
	}
	return nil
}
