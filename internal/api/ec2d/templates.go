package ec2d

import (
	"cmp"
	"context"
	"encoding/base64"
	"regexp"
	"slices"
	"strconv"
	"time"

	"serin/internal/arn"
	"serin/internal/catalogue"
	"serin/internal/id"
	"serin/internal/store"
	"serin/internal/tags"
	"serin/internal/wire"
)

// launchTemplate is the row of a launch template: what instances of an Auto
// Scaling group are like. It has one version; another is another template.
type launchTemplate struct {
	ID, Name, Description, By string
	Token                     string // the same call again makes no other
	Created                   time.Time
	Data                      TemplateData
	Tags                      []Tag
}

// TemplateData is what a template says of instances. The stage needs the type, the
// profile, the security groups, the user data and the tags of it.
type TemplateData struct {
	ImageID        string          `wire:"ImageId"`
	InstanceType   string          `wire:"InstanceType"`
	KeyName        string          `wire:"KeyName"`
	UserData       string          `wire:"UserData"`
	Profile        *Profile        `wire:"IamInstanceProfile"`
	SecurityGroups []string        `wire:"SecurityGroupId"`
	EbsOptimized   *bool           `wire:"EbsOptimized"`
	Monitoring     *Monitoring     `wire:"Monitoring"`
	Metadata       *Metadata       `wire:"MetadataOptions"`
	Tags           []Specification `wire:"TagSpecification"`
}

// Shapes of launch templates.
type (
	Profile struct {
		Arn  string `wire:"Arn"`
		Name string `wire:"Name"`
	}
	Monitoring struct {
		Enabled *bool `wire:"Enabled"`
	}
	Metadata struct {
		HTTPTokens              string `wire:"HttpTokens"`
		HTTPEndpoint            string `wire:"HttpEndpoint"`
		HTTPPutResponseHopLimit *int   `wire:"HttpPutResponseHopLimit"`
		InstanceMetadataTags    string `wire:"InstanceMetadataTags"`
	}
	TagIn struct {
		Key   string `wire:"Key"`
		Value string `wire:"Value"`
	}
	Specification struct {
		ResourceType string  `wire:"ResourceType"`
		Tags         []TagIn `wire:"Tag"`
	}
	CreateLaunchTemplateInput struct {
		ClientToken        string          `wire:"ClientToken"`
		LaunchTemplateName string          `wire:"LaunchTemplateName"`
		VersionDescription string          `wire:"VersionDescription"`
		LaunchTemplateData *TemplateData   `wire:"LaunchTemplateData"`
		TagSpecifications  []Specification `wire:"TagSpecification"`
	}
	LaunchTemplate struct {
		LaunchTemplateID     string    `wire:"launchTemplateId"`
		LaunchTemplateName   string    `wire:"launchTemplateName"`
		CreateTime           time.Time `wire:"createTime"`
		CreatedBy            string    `wire:"createdBy"`
		DefaultVersionNumber int       `wire:"defaultVersionNumber"`
		LatestVersionNumber  int       `wire:"latestVersionNumber"`
		TagSet               []Tag     `wire:"tagSet"`
	}
	LaunchTemplateOutput struct {
		LaunchTemplate LaunchTemplate `wire:"launchTemplate"`
	}
	DescribeLaunchTemplatesInput struct {
		IDs     []string `wire:"LaunchTemplateId"`
		Names   []string `wire:"LaunchTemplateName"`
		Filters []Filter `wire:"Filter"`
	}
	DescribeLaunchTemplatesOutput struct {
		LaunchTemplates []LaunchTemplate `wire:"launchTemplates"`
	}
	DeleteLaunchTemplateInput struct {
		ID   string `wire:"LaunchTemplateId"`
		Name string `wire:"LaunchTemplateName"`
	}
	DescribeLaunchTemplateVersionsInput struct {
		ID       string   `wire:"LaunchTemplateId"`
		Name     string   `wire:"LaunchTemplateName"`
		Versions []string `wire:"LaunchTemplateVersion"`
	}
	ProfileOut struct {
		Arn  string `wire:"arn"`
		Name string `wire:"name"`
	}
	MonitoringOut struct {
		Enabled *bool `wire:"enabled"`
	}
	MetadataOut struct {
		HTTPTokens              string `wire:"httpTokens"`
		HTTPEndpoint            string `wire:"httpEndpoint"`
		HTTPPutResponseHopLimit *int   `wire:"httpPutResponseHopLimit"`
		InstanceMetadataTags    string `wire:"instanceMetadataTags"`
	}
	SpecificationOut struct {
		ResourceType string `wire:"resourceType"`
		Tags         []Tag  `wire:"tagSet"`
	}
	TemplateDataOut struct {
		ImageID        string             `wire:"imageId"`
		InstanceType   string             `wire:"instanceType"`
		KeyName        string             `wire:"keyName"`
		UserData       string             `wire:"userData"`
		Profile        *ProfileOut        `wire:"iamInstanceProfile"`
		SecurityGroups []string           `wire:"securityGroupIdSet"`
		EbsOptimized   *bool              `wire:"ebsOptimized"`
		Monitoring     *MonitoringOut     `wire:"monitoring"`
		Metadata       *MetadataOut       `wire:"metadataOptions"`
		Tags           []SpecificationOut `wire:"tagSpecificationSet"`
	}
	LaunchTemplateVersion struct {
		LaunchTemplateID   string          `wire:"launchTemplateId"`
		LaunchTemplateName string          `wire:"launchTemplateName"`
		VersionNumber      int             `wire:"versionNumber"`
		VersionDescription string          `wire:"versionDescription"`
		CreateTime         time.Time       `wire:"createTime"`
		CreatedBy          string          `wire:"createdBy"`
		DefaultVersion     bool            `wire:"defaultVersion"`
		LaunchTemplateData TemplateDataOut `wire:"launchTemplateData"`
	}
	DescribeLaunchTemplateVersionsOutput struct {
		Versions []LaunchTemplateVersion `wire:"launchTemplateVersionSet"`
	}
)

// templateTypes is what is done with the members of their structures.
var templateTypes = map[string]wire.Members{
	"TemplateData": {
		Performed: "InstanceType UserData IamInstanceProfile SecurityGroupId TagSpecification", Recorded: "ImageId KeyName EbsOptimized Monitoring MetadataOptions"},
	"Profile":       {Performed: "Arn Name"},
	"Monitoring":    {Recorded: "Enabled"},
	"Metadata":      {Recorded: "HttpTokens HttpEndpoint HttpPutResponseHopLimit InstanceMetadataTags"},
	"Specification": {Performed: "ResourceType Tag"},
	"TagIn":         {Performed: "Key Value"},
}

func (a *API) templateOps() []*wire.Op {
	one := func(c *wire.Call, action string) []wire.Check {
		return []wire.Check{{Action: "ec2:" + action, Resource: c.ARN("launch-template/*"), Wild: true}}
	}
	all := func(action string) []wire.Check { return []wire.Check{{Action: "ec2:" + action, Resource: "*"}} }
	return []*wire.Op{
		wire.Handle("CreateLaunchTemplate", a.CreateLaunchTemplate, func(c *wire.Call, in *CreateLaunchTemplateInput) []wire.Check {
			return append(one(c, "CreateLaunchTemplate"), wire.WhenTagged(in.TagSpecifications, wire.Check{
				Action: "ec2:CreateTags", Resource: c.ARN("launch-template/*"), Wild: true, Context: map[string][]string{"ec2:CreateAction": {"CreateLaunchTemplate"}}})...)
		}, wire.Members{Performed: "ClientToken LaunchTemplateName LaunchTemplateData TagSpecification", Recorded: "VersionDescription"}),
		wire.Handle("DescribeLaunchTemplates", a.DescribeLaunchTemplates, func(*wire.Call, *DescribeLaunchTemplatesInput) []wire.Check {
			return all("DescribeLaunchTemplates")
		}, wire.Members{Performed: "LaunchTemplateId LaunchTemplateName Filter"}),
		wire.Handle("DescribeLaunchTemplateVersions", a.DescribeLaunchTemplateVersions, func(*wire.Call, *DescribeLaunchTemplateVersionsInput) []wire.Check {
			return all("DescribeLaunchTemplateVersions")
		}, wire.Members{Performed: "LaunchTemplateId LaunchTemplateName LaunchTemplateVersion"}),
		wire.Handle("DeleteLaunchTemplate", a.DeleteLaunchTemplate, func(c *wire.Call, in *DeleteLaunchTemplateInput) []wire.Check {
			return one(c, "DeleteLaunchTemplate")
		}, wire.Members{Performed: "LaunchTemplateId LaunchTemplateName"}),
	}
}

var templateNames = regexp.MustCompile(`^[a-zA-Z0-9().\-/_]{3,128}$`)

// CreateLaunchTemplate makes a template with its first version.
func (a *API) CreateLaunchTemplate(ctx context.Context, in *CreateLaunchTemplateInput) (*LaunchTemplateOutput, error) {
	call := wire.From(ctx)
	switch {
	case !templateNames.MatchString(in.LaunchTemplateName):
		return nil, fail("InvalidLaunchTemplateName.MalformedException", "The specified launch template name is not valid. It must be between 3 and 128 characters, and may contain letters, numbers, and the characters '-', '_', '.', '/', '(', and ')'.")
	case in.LaunchTemplateData == nil:
		return nil, fail("MissingParameter", "The request must contain the parameter LaunchTemplateData")
	}
	d := *in.LaunchTemplateData
	if _, err := base64.StdEncoding.DecodeString(d.UserData); err != nil {
		return nil, fail("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
	}
	if _, ok := catalogue.Find(d.InstanceType); d.InstanceType != "" && !ok {
		return nil, fail("InvalidParameterValue", "Invalid value '%s' for InstanceType.", d.InstanceType)
	}
	row := launchTemplate{ID: "lt-" + id.Hex(17), Name: in.LaunchTemplateName, Description: in.VersionDescription, By: call.Principal.ARN, Token: in.ClientToken, Created: time.Now().UTC(), Data: d}
	for _, s := range in.TagSpecifications {
		if s.ResourceType != "launch-template" {
			return nil, fail("InvalidParameterValue", "'%s' is not a valid taggable resource type for this operation.", s.ResourceType)
		}
		row.Tags = append(row.Tags, tagsOut(s.Tags)...)
	}
	err := a.store.Update(func(tx *store.Tx) error {
		for _, t := range a.templates.Scan(tx, call.Scope.Key("")) {
			if t.Name == row.Name && t.Token != "" && t.Token == row.Token {
				row = t
				return nil
			}
			if t.Name == row.Name {
				return fail("InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use.")
			}
		}
		a.templates.Put(tx, call.Scope.Key(row.ID), row)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &LaunchTemplateOutput{row.view()}, nil
}

func tagsOut(in []TagIn) (out []Tag) {
	for _, t := range in {
		out = append(out, Tag(t))
	}
	return out
}

func (t launchTemplate) view() LaunchTemplate {
	return LaunchTemplate{t.ID, t.Name, t.Created, t.By, 1, 1, t.Tags}
}

// template finds a template by its id, or else by its name.
func (a *API) template(tx *store.Tx, scope arn.Scope, id, name string) (launchTemplate, error) {
	if id != "" {
		if t, ok := a.templates.Get(tx, scope.Key(id)); ok {
			return t, nil
		}
		return launchTemplate{}, fail("InvalidLaunchTemplateId.NotFound", "The specified launch template, with template ID %s, does not exist.", id)
	}
	for _, t := range a.templates.Scan(tx, scope.Key("")) {
		if t.Name == name {
			return t, nil
		}
	}
	return launchTemplate{}, fail("InvalidLaunchTemplateName.NotFoundException", "The specified launch template, with template name %s, does not exist.", name)
}

// DescribeLaunchTemplates lists templates, all or those named.
func (a *API) DescribeLaunchTemplates(ctx context.Context, in *DescribeLaunchTemplatesInput) (*DescribeLaunchTemplatesOutput, error) {
	scope := wire.From(ctx).Scope
	out := &DescribeLaunchTemplatesOutput{}
	var err error
	a.store.View(func(tx *store.Tx) {
		for _, name := range in.IDs {
			if _, err = a.template(tx, scope, name, ""); err != nil {
				return
			}
		}
		for _, name := range in.Names {
			if _, err = a.template(tx, scope, "", name); err != nil {
				return
			}
		}
		for _, t := range a.templates.Scan(tx, scope.Key("")) {
			var ok bool
			if ok, err = fits(in.Filters, map[string]string{"launch-template-name": t.Name}); err != nil {
				return
			}
			if ok && (in.IDs == nil || slices.Contains(in.IDs, t.ID)) && (in.Names == nil || slices.Contains(in.Names, t.Name)) {
				out.LaunchTemplates = append(out.LaunchTemplates, t.view())
			}
		}
	})
	return out, err
}

// DescribeLaunchTemplateVersions describes the one version of a template.
func (a *API) DescribeLaunchTemplateVersions(ctx context.Context, in *DescribeLaunchTemplateVersionsInput) (*DescribeLaunchTemplateVersionsOutput, error) {
	scope := wire.From(ctx).Scope
	var t launchTemplate
	var err error
	a.store.View(func(tx *store.Tx) { t, err = a.template(tx, scope, in.ID, in.Name) })
	if err != nil {
		return nil, err
	}
	for _, v := range in.Versions {
		if err := onlyVersion(t, v); err != nil {
			return nil, err
		}
	}
	d := t.Data
	data := TemplateDataOut{ImageID: d.ImageID, InstanceType: d.InstanceType, KeyName: d.KeyName, UserData: d.UserData, SecurityGroups: d.SecurityGroups, EbsOptimized: d.EbsOptimized}
	if d.Profile != nil {
		data.Profile = new(ProfileOut(*d.Profile))
	}
	if d.Monitoring != nil {
		data.Monitoring = new(MonitoringOut(*d.Monitoring))
	}
	if d.Metadata != nil {
		data.Metadata = new(MetadataOut(*d.Metadata))
	}
	for _, s := range d.Tags {
		data.Tags = append(data.Tags, SpecificationOut{s.ResourceType, tagsOut(s.Tags)})
	}
	return &DescribeLaunchTemplateVersionsOutput{[]LaunchTemplateVersion{{t.ID, t.Name, 1, t.Description, t.Created, t.By, true, data}}}, nil
}

// onlyVersion refuses a version that a template does not have.
func onlyVersion(t launchTemplate, version string) error {
	if v := cmp.Or(version, "1"); v == "$Latest" || v == "$Default" || v == "1" {
		return nil
	}
	if _, err := strconv.Atoi(version); err != nil {
		return fail("InvalidLaunchTemplateId.VersionMalformed", "The specified launch template version '%s' is not valid.", version)
	}
	return fail("InvalidLaunchTemplateId.VersionNotFound", "Could not find the specified version %s for the launch template with ID %s.", version, t.ID)
}

// DeleteLaunchTemplate removes a template; what it launched stays.
func (a *API) DeleteLaunchTemplate(ctx context.Context, in *DeleteLaunchTemplateInput) (*LaunchTemplateOutput, error) {
	scope := wire.From(ctx).Scope
	var t launchTemplate
	err := a.store.Update(func(tx *store.Tx) (err error) {
		if t, err = a.template(tx, scope, in.ID, in.Name); err == nil {
			a.templates.Delete(tx, scope.Key(t.ID))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &LaunchTemplateOutput{t.view()}, nil
}

// Template is what a launch template says of instances, for who launches them.
type Template struct {
	ID, Name       string
	Type, Image    string
	Profile        string // ARN or name of the instance profile
	UserData       string // as it was before it was encoded
	SecurityGroups []string
	Tags           []tags.Tag
}

// Template finds a version of a launch template.
func (a *API) Template(scope arn.Scope, id, name, version string) (Template, error) {
	var row launchTemplate
	var err error
	a.store.View(func(tx *store.Tx) { row, err = a.template(tx, scope, id, name) })
	if err == nil {
		err = onlyVersion(row, version)
	}
	if err != nil {
		return Template{}, err
	}
	d := row.Data
	t := Template{ID: row.ID, Name: row.Name, Type: d.InstanceType, Image: d.ImageID, SecurityGroups: d.SecurityGroups}
	raw, _ := base64.StdEncoding.DecodeString(d.UserData) // checked when it was made
	t.UserData = string(raw)
	if d.Profile != nil {
		t.Profile = cmp.Or(d.Profile.Arn, d.Profile.Name)
	}
	for _, s := range d.Tags {
		if s.ResourceType == "instance" {
			for _, tag := range s.Tags {
				t.Tags = append(t.Tags, tags.Tag(tag))
			}
		}
	}
	return t, nil
}

// Place is a subnet and its zone.
type Place struct{ Subnet, Zone string }

// Places is the subnets, or else the default subnets of zones, whose VPC has the
// security groups.
func (a *API) Places(scope arn.Scope, subnets, zones, groups []string) (list []Place, err error) {
	if err := a.ensure(scope); err != nil {
		return nil, err
	}
	if len(subnets) == 0 {
		a.store.View(func(tx *store.Tx) {
			for _, s := range a.subnets.Scan(tx, scope.Key("")) {
				if s.Default && slices.Contains(zones, s.Zone) {
					list = append(list, Place{s.ID, s.Zone})
				}
			}
		})
		slices.SortFunc(list, func(x, y Place) int { return cmp.Compare(x.Zone, y.Zone) })
		for _, p := range list {
			subnets = append(subnets, p.Subnet)
		}
	}
	if len(subnets) == 0 {
		return nil, nil
	}
	in, _, err := a.Network(scope, subnets, groups)
	if err != nil {
		return nil, err
	}
	list = nil
	for _, s := range subnets {
		list = append(list, Place{s, in[s]})
	}
	return list, nil
}
