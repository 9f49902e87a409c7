from django.db import migrations

import flashsale.contrib.django.models


class Migration(migrations.Migration):
    dependencies = [("flashsale", "0003_purged_at")]

    operations = [
        migrations.AddField(
            model_name="saleorder",
            name="reason",
            field=flashsale.contrib.django.models.ReasonField(editable=False, null=True),
        ),
    ]
