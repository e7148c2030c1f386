"""A stranger's client meets the registry's errors, each by its class in boto3."""
import hashlib
import json

import boto3

ecr = boto3.client("ecr")
OCI = "application/vnd.oci.image."
WITHIN = "in the repository with name 'web' in the registry with id '000000000000'"


def refused(error, part, call, **kw):
    try:
        call(**kw)
    except getattr(ecr.exceptions, error) as e:
        assert part in e.response["Error"]["Message"], f"wanted {error} with {part!r}, got {e.response['Error']}"
        return e.response
    raise AssertionError(f"{error} was wanted and the call went through")


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def part(upload, content, first=0, repository="web"):
    return dict(repositoryName=repository, uploadId=upload, partFirstByte=first, partLastByte=first + len(content) - 1, layerPartBlob=content)


def begin(repository="web"):
    return ecr.initiate_layer_upload(repositoryName=repository)["uploadId"]


def push(content, repository="web"):
    upload = begin(repository)
    ecr.upload_layer_part(**part(upload, content, repository=repository))
    ecr.complete_layer_upload(repositoryName=repository, uploadId=upload, layerDigests=[digest(content)])


def manifest(config, layer):
    described = lambda kind, content: {"mediaType": OCI + kind, "size": len(content), "digest": digest(content)}
    return json.dumps({"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": described("config.v1+json", config), "layers": [described("layer.v1.tar", layer)]})


for name, mutability in [("web", "MUTABLE"), ("fixed", "IMMUTABLE")]:
    ecr.create_repository(repositoryName=name, imageTagMutability=mutability)

# Layers.
missing = digest(b"missing")
refused("RepositoryNotFoundException", "The repository with name 'none' does not exist", ecr.initiate_layer_upload, repositoryName="none")
refused("UploadNotFoundException", "", ecr.upload_layer_part, **part("00000000-0000-0000-0000-000000000000", b"x"))
upload = begin()
refused("EmptyUploadException", "", ecr.complete_layer_upload, repositoryName="web", uploadId=upload, layerDigests=[missing])
ecr.upload_layer_part(**part(upload, b"small"))
e = refused("InvalidLayerPartException", "", ecr.upload_layer_part, **part(upload, b"gap", first=7))
assert (e["lastValidByteReceived"], e["uploadId"], e["repositoryName"], e["registryId"]) == (4, upload, "web", "000000000000"), e
refused("InvalidLayerException", "", ecr.complete_layer_upload, repositoryName="web", uploadId=upload, layerDigests=[missing])
upload = begin()
ecr.upload_layer_part(**part(upload, b"small"))
ecr.upload_layer_part(**part(upload, b"last", first=5))
refused("LayerPartTooSmallException", "", ecr.complete_layer_upload, repositoryName="web", uploadId=upload, layerDigests=[digest(b"smalllast")])
push(b"layer")
refused("LayerAlreadyExistsException", f"Layer with digest '{digest(b'layer')}' already exists {WITHIN}", push, content=b"layer")
refused("LayersNotFoundException", f"The layer with digest '{missing}' does not exist {WITHIN}", ecr.get_download_url_for_layer, repositoryName="web", layerDigest=missing)
out = ecr.batch_check_layer_availability(repositoryName="web", layerDigests=[digest(b"layer"), missing, "nonsense"])
assert [l["layerAvailability"] for l in out["layers"]] == ["AVAILABLE", "UNAVAILABLE"], out
assert [(f["layerDigest"], f["failureCode"]) for f in out["failures"]] == [("nonsense", "InvalidLayerDigest")], out

# Images.
one = manifest(b"config", b"layer")
e = refused("LayersNotFoundException", f"Layers with digests '[{digest(b'config')}]' required for pushing image", ecr.put_image, repositoryName="web", imageTag="1", imageManifest=one)
assert e["ResponseMetadata"]["HTTPStatusCode"] == 400, e
push(b"config")
image = ecr.put_image(repositoryName="web", imageTag="1", imageManifest=one)["image"]
assert image["imageId"] == {"imageDigest": digest(one.encode()), "imageTag": "1"} and image["imageManifest"] == one, image
refused("ImageAlreadyExistsException", f"Image with digest '{digest(one.encode())}' and tag '1' already exists", ecr.put_image, repositoryName="web", imageTag="1", imageManifest=one)
refused("ImageAlreadyExistsException", f"Image with digest '{digest(one.encode())}' already exists", ecr.put_image, repositoryName="web", imageManifest=one)
refused("ImageDigestDoesNotMatchException", missing, ecr.put_image, repositoryName="web", imageManifest=one, imageDigest=missing)
refused("InvalidParameterException", "Invalid JSON syntax", ecr.put_image, repositoryName="web", imageManifest="{")
refused("ImageNotFoundException", f"imageTag:'none'}} does not exist within the repository with name 'web'", ecr.describe_images, repositoryName="web", imageIds=[{"imageTag": "none"}])
out = ecr.batch_get_image(repositoryName="web", imageIds=[{"imageTag": "none"}, {"imageTag": "1"}, {}])
assert [f["failureCode"] for f in out["failures"]] == ["ImageNotFound", "MissingDigestAndTag"] and len(out["images"]) == 1, out

# An index keeps its images.
index = lambda d: json.dumps({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": [{"mediaType": OCI + "manifest.v1+json", "size": len(one), "digest": d}]})
refused("ReferencedImagesNotFoundException", f"Images with digests '[{missing}]' required for pushing image", ecr.put_image, repositoryName="web", imageManifest=index(missing))
ecr.put_image(repositoryName="web", imageTag="index", imageManifest=index(digest(one.encode())))
out = ecr.batch_delete_image(repositoryName="web", imageIds=[{"imageDigest": digest(one.encode())}])
assert [f["failureCode"] for f in out["failures"]] == ["ImageReferencedByManifestList"] and not out["imageIds"], out

# A tag that stays with its image.
for content in [b"config", b"layer", b"other"]:
    push(content, "fixed")
two = manifest(b"config", b"other")
ecr.put_image(repositoryName="fixed", imageTag="1", imageManifest=one)
refused("ImageTagAlreadyExistsException", "The image tag '1' already exists in the 'fixed' repository and cannot be overwritten because the tag is immutable.",
        ecr.put_image, repositoryName="fixed", imageTag="1", imageManifest=two)
refused("ImageAlreadyExistsException", "and tag '1' already exists", ecr.put_image, repositoryName="fixed", imageTag="1", imageManifest=one)
ecr.put_image(repositoryName="fixed", imageTag="2", imageManifest=two)
assert [i["imageId"]["imageDigest"] for i in ecr.batch_get_image(repositoryName="fixed", imageIds=[{"imageTag": "1"}])["images"]] == [digest(one.encode())]

refused("RepositoryNotEmptyException", "cannot be deleted because it still contains images", ecr.delete_repository, repositoryName="web")
print("ok")
