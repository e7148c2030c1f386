"""A stranger's client walks through identity: users, groups, roles, sessions,
boundaries and web identities, with boto3 and nothing of Serin's."""
import json
import os
import sys
import tempfile
import urllib.request

import boto3
from botocore.exceptions import ClientError

endpoint, token_url = sys.argv[1], sys.argv[2]
ACCOUNT = "000000000000"


def session(key="test", secret="test", token=None):
    s = boto3.session.Session(aws_access_key_id=key, aws_secret_access_key=secret, aws_session_token=token, region_name="us-east-1")
    return lambda service: s.client(service, endpoint_url=endpoint)


def of(credentials):
    return session(credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"])


def refused(code, part, call, **kw):
    try:
        call(**kw)
    except ClientError as e:
        got = e.response["Error"]
        assert got["Code"] == code and part in got["Message"], f"wanted {code} with {part!r}, got {got}"
        return e
    raise AssertionError(f"{code} was wanted and the call went through")


def allow(actions, resource="*", **more):
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": resource, **more}]})


admin = session()
iam, sts = admin("iam"), admin("sts")
assert sts.get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"

# A user in a group, with a key.
iam.create_user(UserName="joe", Tags=[{"Key": "team", "Value": "web"}])
iam.create_group(GroupName="developers")
iam.add_user_to_group(GroupName="developers", UserName="joe")
iam.put_group_policy(GroupName="developers", PolicyName="clusters", PolicyDocument=allow("ecs:*", "arn:aws:ecs:*:*:cluster/${aws:PrincipalTag/team}"))
key = iam.create_access_key(UserName="joe")["AccessKey"]
joe = session(key["AccessKeyId"], key["SecretAccessKey"])
assert joe("sts").get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/joe"
joe("ecs").create_cluster(clusterName="web")
e = refused("AccessDeniedException", "because no identity-based policy allows the ecs:CreateCluster action", joe("ecs").create_cluster, clusterName="api")
refused("AccessDenied", "is not authorized to perform: iam:ListUsers", joe("iam").list_users)

# The refusal is explained by its request id.
with urllib.request.urlopen(f"{endpoint}/_serin/decisions/{e.response['ResponseMetadata']['RequestId']}") as answer:
    decision = json.load(answer)
assert decision["action"] == "ecs:CreateCluster" and decision["remedy"]["document"]["Statement"][0]["Resource"].endswith(":cluster/api")

# What simulation says is what happens.
results = iam.simulate_principal_policy(
    PolicySourceArn=f"arn:aws:iam::{ACCOUNT}:user/joe", ActionNames=["ecs:CreateCluster"],
    ResourceArns=[f"arn:aws:ecs:us-east-1:{ACCOUNT}:cluster/web", f"arn:aws:ecs:us-east-1:{ACCOUNT}:cluster/api"],
    ContextEntries=[{"ContextKeyName": "aws:PrincipalTag/team", "ContextKeyType": "string", "ContextKeyValues": ["web"]}])["EvaluationResults"]
assert [r["EvalDecision"] for r in results] == ["allowed", "implicitDeny"], results

# A boundary limits, a managed policy has versions.
policy = iam.create_policy(PolicyName="only-logs", PolicyDocument=allow("logs:*"))["Policy"]["Arn"]
iam.put_user_permissions_boundary(UserName="joe", PermissionsBoundary=policy)
refused("AccessDeniedException", "because no permissions boundary allows", joe("ecs").create_cluster, clusterName="web")
iam.create_policy_version(PolicyArn=policy, PolicyDocument=allow(["logs:*", "ecs:*", "sts:*"]), SetAsDefault=True)
joe("ecs").create_cluster(clusterName="web")
assert [v["VersionId"] for v in iam.list_policy_versions(PolicyArn=policy)["Versions"]] == ["v2", "v1"]
assert iam.list_entities_for_policy(PolicyArn=policy)["PolicyUsers"][0]["UserName"] == "joe"

# A role for joe, with tags, limited by a session policy.
trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/joe"}, "Action": ["sts:AssumeRole", "sts:TagSession"]}]}
role = iam.create_role(RoleName="ops", Path="/people/", AssumeRolePolicyDocument=json.dumps(trust))["Role"]
assert iam.get_role(RoleName="ops")["Role"]["AssumeRolePolicyDocument"] == trust
iam.attach_role_policy(RoleName="ops", PolicyArn="arn:aws:iam::aws:policy/AmazonECS_FullAccess")
out = joe("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="joe", Tags=[{"Key": "why", "Value": "test"}], Policy=allow("ecs:List*"))
assert out["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/ops/joe"
ops = of(out["Credentials"])
assert ops("ecs").list_clusters()["clusterArns"]
refused("AccessDeniedException", "because no session policy allows", ops("ecs").create_cluster, clusterName="x")

# A GitHub job: botocore's own web identity provider, from the environment.
iam.create_open_id_connect_provider(Url="https://token.actions.githubusercontent.com", ClientIDList=["sts.amazonaws.com"])
iam.create_role(RoleName="deploy", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [{
    "Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity", "Principal": {"Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com"},
    "Condition": {"StringLike": {"token.actions.githubusercontent.com:sub": "repo:acme/web:*"}}}]}))
request = urllib.request.Request(token_url + "&audience=sts.amazonaws.com", headers={"Authorization": "Bearer serin"})
with urllib.request.urlopen(request) as answer, tempfile.NamedTemporaryFile("w", delete=False) as f:
    f.write(json.load(answer)["value"])
os.environ.update(AWS_ROLE_ARN=f"arn:aws:iam::{ACCOUNT}:role/deploy", AWS_WEB_IDENTITY_TOKEN_FILE=f.name, AWS_ROLE_SESSION_NAME="job", AWS_ENDPOINT_URL=endpoint)
job = boto3.session.Session(region_name="us-east-1")
assert job.client("sts").get_caller_identity()["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/deploy/job"
refused("AccessDeniedException", "ecs:RegisterTaskDefinition", job.client("ecs").register_task_definition, family="x", containerDefinitions=[{"name": "x", "image": "x", "memory": 64}])

# Everything pages and is told.
names = [r["RoleName"] for page in iam.get_paginator("list_roles").paginate(PaginationConfig={"PageSize": 1}) for r in page["Roles"]]
assert names == ["deploy", "ops"], names
details = iam.get_paginator("get_account_authorization_details").paginate(PaginationConfig={"PageSize": 2}).build_full_result()
assert {u["UserName"] for u in details["UserDetailList"]} == {"joe"}
print("ok")
